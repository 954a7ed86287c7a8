//! InfluxDB: what the sink wrote is read over HTTP by a client of the tests' own, and the source reads what that client wrote.

use acequia_tests::servers::InfluxDb;
use acequia_tests::{Daemon, json_lines, rows, wait_until};
use serde_json::{Value, json};

/// The keys that name the server and the bucket.
fn server(influxdb: &InfluxDb, bucket: &str) -> String {
    let (url, org, token) = (influxdb.url(), influxdb.org(), influxdb.token());
    format!("type = \"influxdb\"\nurl = \"{url}\"\norg = \"{org}\"\nbucket = \"{bucket}\"\ntoken = \"{token}\"\n")
}

/// A pipeline from a file of JSON lines, with these columns.
fn from_lines(schema: &str, sink: &str) -> String {
    format!(
        "[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\n[source.schema]\n{schema}\n[[sink]]\n{sink}\n\
         [errors.dead_letter]\ntype = \"file\"\npath = \"OUT/dead.jsonl\"\n"
    )
}

fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().map(|value| format!("{value}\n")).collect()
}

/// The errors of the dead letters, by the place of the row.
fn dead(daemon: &Daemon) -> Vec<(i64, String)> {
    let letters = json_lines(&daemon.out("dead.jsonl"));
    letters
        .iter()
        .map(|letter| (letter["offset"].as_i64().unwrap(), letter["error"].as_str().unwrap().to_owned()))
        .collect()
}

/// The course's formula, as Python computes it.
fn triangle(x: i64) -> f64 {
    let (length, amplitude) = (30.0, 10.0);
    let alpha = amplitude / (length / 2.0);
    let place = x.rem_euclid(30) as f64;
    let half = x.rem_euclid(15) as f64;
    let holds = |condition: bool| f64::from(u8::from(condition));
    -amplitude / 2.0
        + amplitude * holds(place == length / 2.0)
        + alpha * half * holds(place <= length / 2.0)
        + (amplitude - alpha * half) * holds(place > length / 2.0)
}

/// Pipeline 6 of the course.
#[test]
fn influxdb_has_the_triangle_wave_at_its_times() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("triangle");
    let mut daemon = Daemon::new();
    let sink = server(influxdb, &bucket);
    daemon.pipeline(
        "triangle",
        &format!(
            "[source]\ntype = \"rate\"\nrows_per_second = 1000\nrows = 300\n\
             [[transform]]\nplugin = \"triangle-wave\"\nconfig = {{ column = \"value\", output = \"tr\" }}\n\
             [[sink]]\n{sink}measurement = \"trwave\"\nfields = [\"tr\"]\n\
             [[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n"
        ),
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let points =
        influxdb.query(&format!("from(bucket: \"{bucket}\") |> range(start: 0) |> sort(columns: [\"_time\"])"));
    let written = json_lines(&daemon.out("rows.jsonl"));
    assert_eq!((points.len(), written.len()), (300, 300));
    for (number, (point, row)) in points.iter().zip(&written).enumerate() {
        assert_eq!(point["_measurement"], "trwave");
        assert_eq!(point["_field"], "tr");
        assert_eq!(point["_value"].as_f64(), Some(triangle(number as i64)), "{number}");
        // InfluxDB leaves out the zeros at the end of a fraction.
        let plain = |time: &Value| time.as_str().unwrap().trim_end_matches('Z').trim_end_matches('0').to_owned();
        assert_eq!(plain(&point["_time"]), plain(&row["timestamp"]));
    }
}

#[test]
fn influxdb_keeps_every_character_that_line_protocol_can_say() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("escapes");
    let mut daemon = Daemon::new();
    let texts = [
        "plain",
        "a b",
        "a,b",
        "a=b",
        "\"",
        "it's",
        "é",
        "#a",
        "C:\\x",
        "a\\\\b",
        "a\\,b",
        "a\\\\ b",
        " a ",
        "{\"a\": [1]}",
    ];
    let refused = ["a\\", "a\nb", "\\"];
    let row = |(number, text): (usize, &&str)| json!({"t": text, "s": format!("{text}\\\"\n"), "time": format!("2020-04-13T12:09:37.{number:06}Z")});
    daemon.file("in.jsonl", lines(texts.iter().chain(&refused).enumerate().map(row)));
    let sink = server(influxdb, &bucket);
    let schema = "t = \"text\"\ns = \"text\"\ntime = \"timestamp\"";
    let names = "measurement = \"m, =1\"\ntags = { \"t, =\" = \"t\" }\nfields = { \"s, =\" = \"s\" }\n";
    daemon.pipeline("escapes", &from_lines(schema, &format!("{sink}{names}")));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let points = influxdb
        .query(&format!("from(bucket: \"{bucket}\") |> range(start: 0) |> group() |> sort(columns: [\"_time\"])"));
    let read: Vec<_> = points.iter().map(|point| point["t, ="].as_str().unwrap()).collect();
    assert_eq!(read, texts);
    for point in &points {
        // The answer's CSV has line breaks of two characters.
        let expected = format!("{}\\\"\n", point["t, ="].as_str().unwrap());
        assert_eq!(point["_value"].as_str().unwrap().replace("\r\n", "\n"), expected);
        assert_eq!((&point["_measurement"], &point["_field"]), (&json!("m, =1"), &json!("s, =")));
    }
    let places: Vec<i64> = dead(&daemon).into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [15, 16, 17]);
}

#[test]
fn influxdb_refuses_only_the_bad_points() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("partial");
    // The same week, so the same shard: there `odd` is a string already.
    influxdb.write(&bucket, "us", "odd,t=0 v=\"text\" 1586779777000000");
    let mut daemon = Daemon::new();
    let measurement = |number: i64| match number % 1000 {
        7 => "odd".to_owned(),
        // Longer than a series key may be.
        8 => "x".repeat(70_000),
        _ => "even".to_owned(),
    };
    let row = |number: i64| {
        let time = format!("2020-04-13T12:09:37.{number:06}Z");
        json!({"m": measurement(number), "time": time, "v": number as f64 + 0.5})
    };
    daemon.file("in.jsonl", lines((0..6000).map(row)));
    let sink = format!("{}measurement_column = \"m\"\n", server(influxdb, &bucket));
    daemon.pipeline("partial", &from_lines("m = \"text\"\ntime = \"timestamp\"\nv = \"float64\"", &sink));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!(influxdb.count(&bucket, "even", "v"), 5988);
    let mut dead = dead(&daemon);
    dead.sort();
    let places: Vec<i64> = dead.iter().map(|(place, _)| *place).collect();
    let expected: Vec<i64> = (0..6).flat_map(|thousand| [thousand * 1000 + 8, thousand * 1000 + 9]).collect();
    assert_eq!(places, expected);
    assert!(dead[0].1.contains("is type float, already exists as type string"), "{}", dead[0].1);
    assert!(dead[1].1.contains("max key length exceeded"), "{}", dead[1].1);
}

#[test]
fn influxdb_says_which_key_is_wrong_and_goes_on_when_it_is_right() {
    let influxdb = InfluxDb::shared();
    let bucket = acequia_tests::servers::unique("late");
    let good = server(influxdb, &bucket);
    let pipeline =
        |sink: &str| format!("[source]\ntype = \"rate\"\nrows_per_second = 100\n[[sink]]\n{sink}measurement = \"m\"\n");
    let mut daemon = Daemon::new();
    let token = format!("token = \"{}\"", influxdb.token());
    let org = format!("org = \"{}\"", influxdb.org());
    daemon.pipeline("token", &pipeline(&good.replace(&token, "token = \"wrong\"")));
    daemon.pipeline("org", &pipeline(&good.replace(&org, "org = \"nowhere\"")));
    daemon.pipeline("bucket", &pipeline(&good));
    daemon.pipeline("url", &pipeline(&good.replace(influxdb.url(), "http://127.0.0.1:1/influx")));
    daemon.start();
    for (name, part) in [
        ("token", "does not know the token: check `token`".to_owned()),
        ("org", "has no organization `nowhere`".to_owned()),
        ("bucket", format!("has no bucket `{bucket}`")),
        ("url", "InfluxDB at http://127.0.0.1:1/influx can't be reached".to_owned()),
    ] {
        wait_until(&format!("{name} is named"), || daemon.status(name).to_string().contains(&part));
    }
    influxdb.create_bucket(&bucket);
    wait_until("points are written", || influxdb.count(&bucket, "m", "value") > 100);
    assert_eq!(daemon.stop().code, Some(0));
}

/// The daemon is killed, the server is killed and stays away, the daemon is killed again meanwhile.
#[test]
fn influxdb_has_every_row_once_after_all_that_can_happen() {
    const ROWS: u64 = 200_000;
    let mut influxdb = InfluxDb::start();
    let bucket = influxdb.bucket("crash");
    let mut daemon = Daemon::new();
    let row = |number: u64| json!({"time": format!("2020-04-13T12:09:37.{number:06}Z"), "n": number});
    daemon.file("in.jsonl", lines((0..ROWS).map(row)));
    let ini = format!(
        "[influx2]\nurl = {}\norg = \"{}\"\ntoken = {}\ntimeout = 5000\n[tags]\nsite = here\n",
        influxdb.url(),
        influxdb.org(),
        influxdb.token()
    );
    daemon.file("influxdb.ini", ini);
    // Small requests, so that it takes a while.
    let sink = format!(
        "type = \"influxdb\"\nconfig = \"DIR/influxdb.ini\"\nbucket = \"{bucket}\"\nmeasurement = \"m\"\nbatch = {{ rows = 200 }}\n"
    );
    daemon.pipeline("crash", &from_lines("time = \"timestamp\"\nn = \"int64\"", &sink));
    daemon.start();
    wait_until("some points are there", || influxdb.count(&bucket, "m", "n") > 0);
    daemon.kill();
    daemon.start();
    let before = influxdb.count(&bucket, "m", "n");
    wait_until("more points are there", || influxdb.count(&bucket, "m", "n") > before);
    influxdb.kill();
    wait_until("the daemon has noticed", || daemon.status("crash").to_string().contains("can't be reached"));
    daemon.kill();
    daemon.start();
    wait_until("the daemon has noticed", || daemon.status("crash").to_string().contains("can't be reached"));
    influxdb.start_again();
    daemon.wait_state("crash", "COMPLETED");
    assert_eq!(influxdb.count(&bucket, "m", "n"), ROWS);
    let sum = influxdb.query(&format!("from(bucket: \"{bucket}\") |> range(start: 0) |> group() |> sum()"));
    assert_eq!(sum[0]["_value"], json!(ROWS * (ROWS - 1) / 2));
    let sites = influxdb.query(&format!("from(bucket: \"{bucket}\") |> range(start: 0) |> distinct(column: \"site\")"));
    assert_eq!(sites.iter().map(|row| row["_value"].clone()).collect::<Vec<_>>(), ["here"]);
}

#[test]
fn influxdb_gives_the_rows_of_a_query_once() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("query");
    let points = "m,t=a\\ b f=1.5 1586779777768982\nm,t=a\\ b i=7i 1586779777768983\nm s=\"x\n\\\"y\" 1586779777768984\n\
                  m b=true 1586779777768985";
    influxdb.write(&bucket, "us", points);
    let mut daemon = Daemon::new();
    let source = server(influxdb, &bucket).replace(&format!("bucket = \"{bucket}\"\n"), "");
    let query = format!(
        "query = '''\nimport \"strings\"\nfrom(bucket: \"{bucket}\") |> range(start: v.timeRangeStart, stop: now())\n\
         |> filter(fn: (r) => strings.hasPrefix(v: r._measurement, prefix: \"m\")) |> drop(columns: [\"_start\", \"_stop\"])'''\n"
    );
    let sink = "[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n";
    daemon.pipeline("query", &format!("[source]\n{source}{query}{sink}"));
    let expected = [
        json!({"_time": "2020-04-13T12:09:37.768982Z", "_value": 1.5, "_field": "f", "_measurement": "m", "t": "a b"}),
        json!({"_time": "2020-04-13T12:09:37.768983Z", "_value": 7, "_field": "i", "_measurement": "m", "t": "a b"}),
        json!({"_time": "2020-04-13T12:09:37.768984Z", "_value": "x\n\"y", "_field": "s", "_measurement": "m"}),
        json!({"_time": "2020-04-13T12:09:37.768985Z", "_value": true, "_field": "b", "_measurement": "m"}),
    ];
    // Once more: there is nothing left to do.
    for _ in 0..2 {
        let exit = daemon.once();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        let mut read = json_lines(&daemon.out("rows.jsonl"));
        read.sort_by_key(|row| row["_time"].to_string());
        assert_eq!(read, expected);
    }
}

#[test]
fn influxdb_is_asked_about_each_time_once() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("windows");
    let mut daemon = Daemon::new();
    let source = server(influxdb, &bucket).replace(&format!("bucket = \"{bucket}\"\n"), "");
    daemon.pipeline(
        "write",
        &format!(
            "[source]\ntype = \"rate\"\nrows_per_second = 500\nrows = 2000\n[[sink]]\n{}measurement = \"m\"\n\
             batch = {{ wait = \"100ms\" }}\n",
            server(influxdb, &bucket)
        ),
    );
    daemon.pipeline(
        "read",
        &format!(
            "[source]\n{source}every = \"200ms\"\ndelay = \"3s\"\nschema = {{ _time = \"timestamp\", _value = \"int64\" }}\n\
             query = 'from(bucket: \"{bucket}\") |> range(start: v.timeRangeStart, stop: v.timeRangeStop)'\n\
             [[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n"
        ),
    );
    daemon.start();
    wait_until("some rows are there", || rows(&daemon.out("rows.jsonl")) > 200);
    daemon.kill();
    daemon.start();
    wait_until("all rows are there", || rows(&daemon.out("rows.jsonl")) >= 2000);
    assert_eq!(daemon.stop().code, Some(0));
    let mut values = acequia_tests::values_of(&daemon.out("rows.jsonl"), "_value");
    values.sort_unstable();
    assert_eq!(values, (0..2000).collect::<Vec<_>>());
}

#[test]
fn influxdb_over_tls() {
    let influxdb = InfluxDb::start_tls();
    let bucket = influxdb.bucket("tls");
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines([json!({"time": "2020-04-13T12:09:37Z", "n": 1})]));
    let sink = |tls: &str| format!("{}measurement = \"m\"\n{tls}", server(&influxdb, &bucket));
    let schema = "time = \"timestamp\"\nn = \"int64\"";
    daemon.pipeline("tls", &from_lines(schema, &sink("")));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("certificate verify failed"), "{}", exit.stderr);
    let ca = format!("tls = {{ ca = \"{}\" }}\n", influxdb.certificate().display());
    daemon.pipeline("tls", &from_lines(schema, &sink(&ca)));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(influxdb.count(&bucket, "m", "n"), 1);
}
