//! Files that hang on the environment: what `validate` says with and without it.

use acequia_tests::Daemon;

use super::{steady, validate};

#[test]
fn without_the_environment_only_what_hangs_on_it_is_left_unchecked() {
    let daemon = Daemon::new();
    let right = daemon.pipeline(
        "right",
        r#"
        source = { type = "rate", rows_per_second = "${ACEQUIA_TEST_NO_SUCH_RATE}" }
        transform = [{ plugin = "even-filter", config = { column = "${ACEQUIA_TEST_NO_SUCH_COLUMN}" } }]
        sink = [{ type = "file", path = "${ACEQUIA_TEST_NO_SUCH_FOLDER}/x.jsonl" }]
        "#,
    );
    let output = validate(&right, &["--no-env"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    let output = validate(&right, &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("config_env", steady(&daemon, &String::from_utf8_lossy(&output.stderr)));

    let wrong = daemon.pipeline(
        "wrong",
        r#"
        source = { type = "rate", rows_per_second = "${ACEQUIA_TEST_NO_SUCH_RATE}", row = 3 }
        transform = [{ plugin = "even-fliter" }]
        sink = [{ type = "file", path = "${ACEQUIA_TEST_NO_SUCH_FOLDER}/x.jsonl" }]
        "#,
    );
    let output = validate(&wrong, &["--no-env"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("config_no_env", steady(&daemon, &String::from_utf8_lossy(&output.stderr)));
}
