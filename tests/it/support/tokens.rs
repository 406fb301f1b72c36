//! Token files and secrets for tests of servers with `--tokens`.

use std::path::PathBuf;

use super::program;

/// A token file; removed when dropped.
pub struct TokenFile(PathBuf);

impl TokenFile {
    pub fn new(name: &str, text: &str) -> TokenFile {
        let path = std::env::temp_dir().join(format!("longpoll-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        TokenFile(path)
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `longpoll token`; returns the line for the file and the secret.
pub fn new_token(name: &str, rights: &str, topics: &str) -> (String, String) {
    let output = program().args(["token", name, rights, topics]).output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    (line, message.trim().rsplit(' ').next().unwrap().to_owned())
}

/// The header line that presents a secret.
pub fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}\r\n")
}
