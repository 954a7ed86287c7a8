//! A page is followed, block by block, in a folder of its own.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use acequia_tests::{binary, eventually, out_dir, workspace};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::blocks::Block;
use super::examples::copy_tree;

/// A page that is being followed.
pub struct Session {
    folder: TempDir,
    /// Where commands run.
    here: PathBuf,
    /// Where a daemon's admin listener is, in the place of the usual port.
    listen: String,
    background: Option<Child>,
    /// How far the background command's output has been read.
    read: usize,
    checked: usize,
}

impl Session {
    /// A folder in which there is `acequia`, the checkout; or, `inside`, what a page needs that is read in it.
    pub fn new(inside: bool) -> Self {
        assert!(binary().exists());
        let folder = tempfile::Builder::new().prefix("acequia-docs-").tempdir().unwrap();
        let mut here = folder.path().to_owned();
        symlink(workspace(), here.join("acequia")).unwrap();
        if inside {
            here.push("checkout");
            std::fs::create_dir_all(here.join("target")).unwrap();
            for built in ["release", "plugins"] {
                symlink(out_dir().join(built), here.join("target").join(built)).unwrap();
            }
            copy_tree(&workspace().join("examples"), &here.join("examples"));
        }
        // Free now; who else would ask for just this one?
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Session { folder, here, listen, background: None, read: 0, checked: 0 }
    }

    /// Do what the block says.
    pub fn run(&mut self, block: &Block) {
        let write = |path: &str, append: bool| {
            let path = self.here.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let before = if append { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            std::fs::write(&path, before + &self.here_and_now(&block.text)).unwrap();
            if path.ends_with("Cargo.toml") {
                // The versions that are there already.
                std::fs::copy(workspace().join("Cargo.lock"), path.with_file_name("Cargo.lock")).unwrap();
            }
        };
        if let Some(path) = block.value("file") {
            write(path, false);
        }
        if let Some(path) = block.value("append") {
            write(path, true);
        }
        let flags: Vec<&str> = block.flags.iter().map(|flag| flag.split('=').next().unwrap_or_default()).collect();
        match (block.language.as_str(), flags.as_slice()) {
            ("toml", ["file"]) if block.text.starts_with("[package]") => {}
            ("toml", [] | ["file"] | ["wrong"] | ["file", "wrong"]) => self.validate(block),
            ("toml", ["same"]) => {
                let path = block.value("same").unwrap_or_default();
                let file = std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
                assert_eq!(block.text, file, "{}: it is not what lies in {path}", block.place);
            }
            ("python", []) => {
                let parse = "import ast, sys; ast.parse(sys.argv[1])";
                let output = Command::new("python3").args(["-c", parse, &block.text]).output().unwrap();
                assert!(output.status.success(), "{}: {}", block.place, printed(&output));
            }
            ("rust", ["file" | "append"]) => {}
            ("sh", []) => {
                let output = self.shell(&block.text).output().unwrap();
                assert!(output.status.success(), "{}: {}\n{}", block.place, output.status, printed(&output));
            }
            ("sh", ["background"]) => self.start(block),
            ("sh", ["no-run"]) => {
                let output = Command::new("bash").args(["-n", "-c", &block.text]).output().unwrap();
                assert!(output.status.success(), "{}: {}", block.place, printed(&output));
            }
            ("console", []) => self.console(block),
            ("text", ["log"]) => self.log(block),
            ("text" | "ini" | "yaml", []) => {}
            (language, flags) => panic!("{}: nobody knows what to do with `{language} {flags:?}`", block.place),
        }
    }

    /// What a page says of a reader's machine, said of this one.
    fn here_and_now(&self, text: &str) -> String {
        let checkout = workspace().display().to_string();
        text.replace("../acequia/", &format!("{checkout}/"))
            .replace("plugins/build.sh ..", &format!("{checkout}/plugins/build.sh .."))
            // Everything is built: `build` is taken to be done.
            .replace("make run", &format!("make -C {checkout} -o build run"))
            .replace("acequia status", &format!("acequia status --address {}", self.listen))
            .replace("127.0.0.1:8083", &self.listen)
    }

    fn shell(&self, text: &str) -> Command {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-euo", "pipefail", "-c", &self.here_and_now(text)])
            .current_dir(&self.here)
            .stdin(Stdio::null())
            .env("PATH", format!("{}:{path}", out_dir().join("release").display()))
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .env("NO_COLOR", "1")
            .env("QUICKSTART", self.here.join("target/quickstart"))
            .env("LISTEN", &self.listen)
            // As the workspace's own profile says, so that what is built already is not built again.
            .env("CARGO_TARGET_DIR", out_dir())
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("background.log")
    }

    fn start(&mut self, block: &Block) {
        assert!(self.background.is_none(), "{}: one command is in the background already", block.place);
        let log = File::create(self.log_file()).unwrap();
        let mut command = self.shell(&block.text);
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.background = Some(command.spawn().unwrap());
        self.wait_log(&block.place, "ready");
    }

    fn wait_log(&mut self, place: &str, line: &str) {
        let path = self.log_file();
        let log = || String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let from = self.read;
        let found = eventually(&format!("{place}: `{line}` in {}", path.display()), || {
            Some(from + log().get(from..)?.find(line)? + line.len())
        });
        self.read = found;
    }

    fn log(&mut self, block: &Block) {
        assert!(self.background.is_some(), "{}: nothing runs in the background", block.place);
        for line in block.text.lines() {
            self.wait_log(&block.place, line);
        }
    }

    /// Each command prints what stands behind it.
    fn console(&self, block: &Block) {
        let mut rest = block.text.as_str();
        while let Some(command) = rest.strip_prefix("$ ") {
            let (command, after) = command.split_once('\n').unwrap_or((command, ""));
            let end = if after.starts_with("$ ") { 0 } else { after.find("\n$ ").map_or(after.len(), |at| at + 1) };
            let output = self.shell(&format!("set +e\nexec 2>&1\n{command}")).output().unwrap();
            let found = String::from_utf8_lossy(&output.stdout);
            if let Err(line) = agree(&after[..end], &found) {
                panic!("{}: `{command}` does not print line {line:?}; it prints:\n{found}", block.place);
            }
            rest = &after[end..];
        }
        assert!(rest.trim().is_empty(), "{}: a line belongs to no command: {rest}", block.place);
    }

    /// The block is a pipeline, or some tables of one.
    fn validate(&mut self, block: &Block) {
        let path = match block.value("file") {
            Some(path) => self.here.join(path),
            None => {
                let path = self.here.join(format!("block-{}.toml", self.checked));
                std::fs::write(&path, complete(block)).unwrap();
                path
            }
        };
        let mut command = self.shell("acequia validate --no-env --plugins \"$PLUGINS\" \"$FILE\"");
        let output = command.env("FILE", path).env("PLUGINS", out_dir().join("plugins")).output().unwrap();
        assert_eq!(output.status.success(), !block.has("wrong"), "{}:\n{}", block.place, printed(&output));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut child) = self.background.take() {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

/// A source and a sink for tables that have none; for a connector's bare keys, the table that its heading names.
fn complete(block: &Block) -> String {
    let table: toml::Table = block.text.parse().unwrap_or_else(|error| panic!("{}: {error}", block.place));
    let mut text = block.text.clone();
    if table.contains_key("type") {
        text = if block.heading.ends_with(" sink") { format!("[[sink]]\n{text}") } else { format!("[source]\n{text}") };
    }
    for (key, needed) in
        [("[source]", "\n[source]\ntype = \"rate\"\n"), ("[[sink]]", "\n[[sink]]\ntype = \"blackhole\"\n")]
    {
        if !text.lines().any(|line| line.trim() == key) {
            text.push_str(needed);
        }
    }
    text
}

/// Whether that is what was printed; if not, the first line that is missing.
fn agree(expected: &str, found: &str) -> Result<(), String> {
    let mut found = found.trim_end().lines().map(str::trim_end);
    let mut skip = false;
    for line in expected.trim_end().lines().map(str::trim_end) {
        if line == "..." {
            skip = true;
        } else if std::mem::take(&mut skip) {
            found.find(|other| *other == line).ok_or(line)?;
        } else if found.next() != Some(line) {
            return Err(line.to_owned());
        }
    }
    match found.next() {
        Some(more) if !skip => Err(format!("(nothing, where there is {more})")),
        _ => Ok(()),
    }
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// For the examples: `acequia` with these arguments, run to its end in a folder.
pub fn acequia(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .env("ACEQUIA_PLUGINS", out_dir().join("plugins"))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn outputs_are_compared_line_by_line() {
    assert_eq!(agree("a\nb\n", "a\nb\n"), Ok(()));
    assert_eq!(agree("a\n", "a\nb\n"), Err("(nothing, where there is b)".to_owned()));
    assert_eq!(agree("a\nb\n", "a\n"), Err("b".to_owned()));
    assert_eq!(agree("a\n...\nd\n", "a\nb\nc\nd\n"), Ok(()));
    assert_eq!(agree("a\n...\n", "a\nb\nc\n"), Ok(()));
    assert_eq!(agree("a\n...\ne\n", "a\nb\n"), Err("e".to_owned()));
}
