//! The command on stores of other engines: each run is a process of its own and goes on where the last one was.

mod support;

use std::{env, process::Command};

use support::{Said, guests, text};

fn vmsync(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_vmsync"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the command starts");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_guest_counts_on_an_object_store() {
    let (Some(guests), Ok(server)) = (guests(), env::var("VMSYNC_S3")) else {
        return;
    };
    let module = guests.join("counter.wasm");
    let (endpoint, bucket) = server.rsplit_once('/').unwrap();
    let map = format!("counter=s3://{bucket}/command-{}:main", std::process::id());
    for count in 1..4 {
        let arguments = ["run", "--invoke", "add", "--map", &map, text(&module)];
        assert_eq!(
            vmsync(&arguments, &[("AWS_ENDPOINT_URL", endpoint)]).ok(),
            count.to_string()
        );
    }
    let arguments = ["run", "--invoke", "add", "--map", &map, text(&module)];
    let wrong = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
    ];
    let said = vmsync(&arguments, &wrong);
    assert!(!said.err.contains("hidden"), "{}", said.err);
    said.fails(1, &["cannot open the store s3://", "403 Forbidden"]);
}

#[test]
fn a_guest_counts_in_postgresql() {
    let (Some(guests), Ok(server)) = (guests(), env::var("VMSYNC_PG")) else {
        return;
    };
    let module = guests.join("counter.wasm");
    let (user, host) = server.split_once('@').unwrap();
    let (_, password) = user.rsplit_once(':').unwrap();
    let object = format!("command-{}", std::process::id());
    let map = format!("counter=postgres://postgres@{host}:{object}");
    for count in 1..4 {
        let arguments = ["run", "--invoke", "add", "--map", &map, text(&module)];
        assert_eq!(
            vmsync(&arguments, &[("PGPASSWORD", password)]).ok(),
            count.to_string()
        );
    }
    let arguments = ["run", "--invoke", "add", "--map", &map, text(&module)];
    let said = vmsync(&arguments, &[("PGPASSWORD", "hidden")]);
    assert!(!said.err.contains("hidden"), "{}", said.err);
    said.fails(1, &["cannot open the store postgres://", "PGPASSWORD"]);
}

#[test]
fn what_is_no_store_is_said() {
    let said = vmsync(&["run", "--map", "counter=ftp://host/x", "none.wasm"], &[]);
    said.fails(2, &["\"ftp:\" is no store", "s3://BUCKET/PREFIX"]);
}
