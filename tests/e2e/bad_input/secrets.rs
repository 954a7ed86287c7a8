//! Secrets are never seen: not in the log, not over REST, not in what `validate` says.

use acequia_tests::Daemon;

/// Written in the file, in an environment variable, in a file of its own.
const SECRETS: [&str; 3] = ["hunter2-in-the-file", "hunter3-in-the-environment", "hunter4-in-a-file"];

/// Right and wrong in many ways, each with a secret near the mistake.
fn pipelines() -> Vec<(&'static str, String)> {
    let [written, ..] = SECRETS;
    let rate = "source = { type = \"rate\", rows_per_second = 100 }";
    let sink = "sink = [{ type = \"blackhole\" }]";
    let transform = |config: &str| {
        format!("{rate}\ntransform = [{{ plugin = \"even-filter\", config = {{ {config} }} }}]\n{sink}\n")
    };
    vec![
        ("unknown-key", format!("{rate}\nsink = [{{ type = \"blackhole\", token = \"{written}\" }}]\n")),
        ("unknown-key-misspelt", format!("{rate}\nsink = [{{ type = \"blackhole\", pasword = \"{written}\" }}]\n")),
        ("wrong-place", format!("password = \"{written}\"\n{rate}\n{sink}\n")),
        ("of-a-plugin", transform(&format!("api_token = \"{written}\""))),
        ("of-a-plugin-env", transform("api_token = \"${ACEQUIA_TEST_SECRET}\"")),
        ("of-a-plugin-table", transform("api_token = { env = \"ACEQUIA_TEST_SECRET\" }")),
        ("same-line", format!("{rate}\nsink = [{{ type = \"blackhol\", password = \"{written}\" }}]\n")),
        ("wrong-type", format!("{rate}\nsink = [{{ type = \"file\", path = 5, secret = \"{written}\" }}]\n")),
        ("syntax", format!("{rate}\n{sink}\n[x]\npassword = \"{written}\"\ny = = 1\n")),
        ("open-string", format!("{rate}\n{sink}\n[x]\npassword = \"{written}\n")),
        ("multi-line", format!("{rate}\nsink = [{{ type = \"blackhole\", token = \"\"\"\n{written}\n\"\"\" }}]\n")),
        (
            "env-of-a-wrong-type",
            format!("source = {{ type = \"rate\", rows_per_second = \"${{ACEQUIA_TEST_SECRET}}\" }}\n{sink}\n"),
        ),
        ("good", format!("{rate}\ndescription = \"${{ACEQUIA_TEST_SECRET}}\"\n{sink}\n")),
    ]
}

#[track_caller]
fn nothing_shows(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows a secret:\n{text}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let mut daemon = Daemon::new().env("ACEQUIA_TEST_SECRET", SECRETS[1]).env("ACEQUIA_LOG", "trace");
    let pipelines = pipelines();
    daemon.file("secret", SECRETS[2]);
    for (name, text) in &pipelines {
        daemon.pipeline(name, text);
    }
    for arguments in [&["--json"][..], &[], &["--no-env"], &["--no-env", "--json"]] {
        let output = std::process::Command::new(acequia_tests::binary())
            .arg("validate")
            .args(arguments)
            .arg(daemon.pipelines())
            .env("ACEQUIA_TEST_SECRET", SECRETS[1])
            .output()
            .unwrap();
        nothing_shows("validate", &String::from_utf8_lossy(&output.stdout));
        nothing_shows("validate", &String::from_utf8_lossy(&output.stderr));
    }
    daemon.start();
    daemon.wait_state("good", "RUNNING");
    for (name, _) in pipelines.iter().filter(|(name, _)| *name != "good") {
        nothing_shows("the status", &daemon.wait_state(name, "FAILED").to_string());
    }
    let rest = daemon.rest();
    for path in ["/", "/connectors?expand=status&expand=info", "/health", "/metrics"] {
        nothing_shows(path, &rest.get(path).map(|answer| answer.to_string()).unwrap_or_default());
    }
    let (_, answer) = rest.reload();
    nothing_shows("the answer to a reload", &answer.to_string());
    let exit = daemon.stop();
    assert_eq!(exit.code, Some(0));
    assert!(exit.stderr.contains("can't be used"), "{}", exit.stderr);
    nothing_shows("the log", &exit.stderr);
    nothing_shows("standard output", &exit.stdout);
}
