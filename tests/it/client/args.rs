//! Guards the arguments of the client commands: the help lists them, and an error names the wrong
//! argument and what is expected.

use longpoll::client::command::{FOLLOW_HELP, PUBLISH_HELP};

use crate::support::command::{assert_failure, run};

#[test]
fn help_fits_one_screen_and_lists_every_flag() {
    for (command, help) in [("follow", FOLLOW_HELP), ("publish", PUBLISH_HELP)] {
        assert!(help.lines().count() <= 40, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        for flag in ["--help", "-h"] {
            let output = run(&[command, "x", flag]);
            assert_eq!((output.status.code(), &*output.stdout), (Some(0), help.as_bytes()));
        }
        let listed = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
        for flag in listed.map(|line| line.split(' ').next().unwrap()) {
            // The flag is known, without or with a value.
            for args in
                [[command, &format!("--{flag}")].as_slice(), &[command, &format!("--{flag}=1")]]
            {
                let message = String::from_utf8(run(args).stderr).unwrap();
                assert!(!message.contains("unknown flag"), "{message}");
            }
        }
    }
    let general = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(general.contains("follow --help") && general.contains("publish --help"), "{general}");
}

#[test]
fn error_names_the_wrong_argument_and_the_allowed_ones() {
    for (args, says) in [
        (&["follow"][..], &["0 arguments given", "URL TOPICS", "--help"][..]),
        (&["follow", "x", "a", "b"], &["3 arguments given"]),
        (&["follow", "x", "a b"], &["topic \"a b\"", "A-Z"]),
        (&["follow", "https://x", "a"], &["TLS belongs to a proxy", "unix:/PATH"]),
        (&["follow", "ftp://x", "a"], &["ftp: is unknown"]),
        (&["follow", "--format", "xml", "x", "a"], &["--format xml", "ndjson"]),
        (&["follow", "--format", "{sq}", "x", "a"], &["no field \"sq\"", "seq, topic"]),
        (&["follow", "--since", "a b", "x", "a"], &["since \"a b\"", "last:N"]),
        (&["follow", "--type", "a b", "x", "a"], &["--type a b", "A-Z"]),
        (&["follow", "--on-gap", "stop", "x", "a"], &["--on-gap stop", "fail or skip"]),
        (&["follow", "--count", "0", "x", "a"], &["--count 0", "at least 1"]),
        (&["follow", "--wait", "2h", "x", "a"], &["--wait 2h", "up to 3600 s"]),
        (&["follow", "--state"], &["--state", "--help"]),
        (&["follow", "--josn", "x", "a"], &["unknown flag --josn", "longpoll follow --help"]),
        (&["follow", "-x"], &["unknown flag -x"]),
        (&["publish", "x"], &["1 arguments given", "URL TOPIC [DATA]"]),
        (&["publish", "x", "a*", "b"], &["topic \"a*\"", "A-Z"]),
        (&["publish", "--type", "", "x", "a", "b"], &["--type", "A-Z"]),
        (&["publish", "--stdin", "xml", "x", "a"], &["--stdin xml", "json, text or whole"]),
        (&["publish", "--stdin", "text", "x", "a", "b"], &["exclude each other"]),
        (&["publish", "--json", "x", "a"], &["--stdin json"]),
        (&["publish", "--key", "k", "x", "a"], &["--key is for one event"]),
        (&["publish", "--key", "é", "x", "a", "b"], &["key \"é\"", "printable ASCII"]),
        (&["publish", "--retry-for", "9m", "x", "a", "b"], &["--retry-for 9m", "up to 480 s"]),
        (&["publish", "http://me@x", "a", "b"], &["--token-file"]),
    ] {
        let output = run(args);
        assert_failure(&output, 2, says);
        assert!(output.stdout.is_empty());
    }
}
