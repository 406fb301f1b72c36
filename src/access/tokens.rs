//! `TokenFile`: who may read, publish or administer which topics.
//!
//! The server knows only hashes of the secrets: whoever reads its file cannot use what is in it.

use std::fmt::{self, Display};
use std::io::{self, Error, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};

use super::RequiredRight;
use super::digest::TokenDigest;
use crate::config::TokenRequest;
use crate::http::{HeaderName, RequestHead};
use crate::limits::{MAX_TOKENS, TOKENS_FILE_BYTES};
use crate::names::{NAME_RULE, Name, TopicSet};
use crate::problem::{Cause, Problem};

/// One thing that a token may allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Poll.
    Read,
    Publish,
    /// Trim, list topics, read the metrics.
    Admin,
}

impl Right {
    const ALL: [(Right, &str); 3] =
        [(Right::Read, "read"), (Right::Publish, "publish"), (Right::Admin, "admin")];
}

impl Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Right::ALL[*self as usize].1)
    }
}

/// Some rights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rights(Vec<Right>);

impl Rights {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(list: &str) -> Result<Rights, String> {
        let right =
            |word| Right::ALL.iter().find(|(_, name)| *name == word).map(|(right, _)| *right);
        let rights: Option<Vec<Right>> = list.split(',').map(right).collect();
        rights.map(Rights).ok_or_else(|| {
            format!("rights {list:?}: allowed are read, publish and admin, separated by commas")
        })
    }
}

/// One line of the file.
pub struct Token {
    /// Who it was given to: keys belong to this name, and it may be shown.
    pub name: Name,
    digest: TokenDigest,
    rights: Rights,
    topics: TopicSet,
}

impl Token {
    fn parse(line: &str) -> Result<Token, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, digest, rights, topics] = words[..] else {
            return Err(format!(
                "words: {}; a token has four, without spaces in them: NAME SHA256-IN-HEX RIGHTS \
                 TOPICS",
                words.len()
            ));
        };
        Ok(Token {
            name: Name::new(name).ok_or_else(|| format!("name {name:?} is not {NAME_RULE}"))?,
            digest: TokenDigest::parse(digest)
                .ok_or("the second word is not a SHA-256 in 64 hex digits")?,
            rights: Rights::parse(rights)?,
            topics: TopicSet::parse(topics)?,
        })
    }

    fn allows(&self, (right, topics): &RequiredRight) -> Result<(), Problem> {
        let name = &self.name;
        if !self.rights.0.contains(right) {
            let detail = format!("token {name} does not have the right {right}");
            return Err(Problem::new(Cause::Forbidden, detail));
        }
        match topics.iter().find(|pattern| !self.topics.covers(pattern)) {
            None => Ok(()),
            Some(pattern) => {
                let detail = format!("token {name} does not have the right {right} for {pattern}");
                Err(Problem::new(Cause::Forbidden, detail))
            }
        }
    }
}

/// The tokens of a file, as it is now.
pub struct TokenFile {
    path: PathBuf,
    seen: Mutex<FileState>,
    known: Mutex<Arc<[Arc<Token>]>>,
    /// Whether what is known is not what the file says now.
    outdated: AtomicBool,
}

/// What the file held, right or wrong.
struct FileState {
    /// When it was followed, or found to be wrong.
    settled: Vec<u8>,
    /// At the last look, if that is something else: it may be half written.
    changed: Option<Vec<u8>>,
}

/// What came of a change of the file.
pub enum TokenReload {
    /// So many tokens are known now.
    Known(usize),
    /// The change is not followed, because of this; so many stay known as before.
    Wrong(Error, usize),
}

impl TokenFile {
    pub fn open(path: &Path) -> io::Result<TokenFile> {
        let about = |e: Error| Error::new(e.kind(), format!("--tokens {}: {e}", path.display()));
        let text = read(path).map_err(about)?;
        let known = parse(&text).map_err(about)?;
        let seen = Mutex::new(FileState { settled: text, changed: None });
        let known = Mutex::new(known);
        Ok(TokenFile { path: path.to_owned(), seen, known, outdated: AtomicBool::new(false) })
    }

    /// How many are known, and whether that is not what the file says now.
    pub fn state(&self) -> (usize, bool) {
        (self.known.lock().len(), self.outdated.load(Ordering::Relaxed))
    }

    /// Looks at the file. The whole of it is compared: whatever a time stamp says, a token that
    /// was taken out is out. A change is followed when two looks in a row see the same.
    pub fn refresh(&self) -> Option<TokenReload> {
        // What cannot be read is told once, as what is wrong is.
        let text = read(&self.path);
        let now = text.as_ref().map_or_else(|e| e.to_string().into_bytes(), Clone::clone);
        let mut seen = self.seen.lock();
        if seen.settled == now {
            seen.changed = None;
            return None;
        }
        if seen.changed.as_ref() != Some(&now) {
            seen.changed = Some(now);
            return None;
        }
        *seen = FileState { settled: now, changed: None };
        drop(seen);
        let parsed = text.and_then(|text| parse(&text));
        self.outdated.store(parsed.is_err(), Ordering::Relaxed);
        Some(match parsed {
            Ok(known) => {
                let count = known.len();
                *self.known.lock() = known;
                TokenReload::Known(count)
            }
            Err(error) => TokenReload::Wrong(error, self.state().0),
        })
    }

    pub fn authorize(
        &self,
        head: &RequestHead,
        need: &RequiredRight,
    ) -> Result<Arc<Token>, Problem> {
        let field = head.get(HeaderName::Authorization)?.ok_or_else(|| {
            unauthorized("this needs a token: header Authorization: Bearer TOKEN", "Bearer")
        })?;
        let secret = field
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
            .map(|(_, secret)| secret.trim())
            .filter(|secret| !secret.is_empty())
            .ok_or_else(|| {
                let detail = "header Authorization has to be the word Bearer, a space and a token";
                unauthorized(detail, "Bearer")
            })?;
        let digest = TokenDigest::of(secret.as_bytes());
        let token = self.find(&digest).ok_or_else(unknown)?;
        token.allows(need)?;
        Ok(token)
    }

    pub fn recheck(&self, token: &Token, need: &RequiredRight) -> Result<(), Problem> {
        self.find(&token.digest).ok_or_else(unknown)?.allows(need)
    }

    /// The token of this hash. All are compared, so that the time tells nothing.
    fn find(&self, digest: &TokenDigest) -> Option<Arc<Token>> {
        let known = Arc::clone(&self.known.lock());
        let mut found = None;
        for token in known.iter() {
            if token.digest.equals(digest) {
                found = Some(token);
            }
        }
        found.cloned()
    }
}

fn unauthorized(detail: &str, challenge: &str) -> Problem {
    Problem::new(Cause::Unauthorized, detail).with_header("WWW-Authenticate", challenge)
}

fn unknown() -> Problem {
    unauthorized("this token is not known here", "Bearer error=\"invalid_token\"")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // A pipe could be read once only, and keep whoever opens it waiting.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "this is no regular file"));
    }
    std::fs::File::open(path)?.take(TOKENS_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TOKENS_FILE_BYTES {
        let why = format!("the file is larger than {TOKENS_FILE_BYTES} bytes");
        return Err(Error::new(ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Reads a file of tokens: one a line; empty lines and those that begin with `#` say nothing.
fn parse(text: &[u8]) -> io::Result<Arc<[Arc<Token>]>> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidData, why);
    let text = std::str::from_utf8(text).map_err(|_| wrong("the file is not UTF-8".into()))?;
    let mut tokens: Vec<Arc<Token>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |why: String| wrong(format!("line {}: {why}", index + 1));
        let token = Token::parse(line).map_err(at)?;
        if tokens.iter().any(|known| known.name == token.name) {
            return Err(at(format!("name {} is there already", token.name)));
        }
        if tokens.iter().any(|known| known.digest.equals(&token.digest)) {
            return Err(at("this hash is there already, under another name".into()));
        }
        if tokens.len() == MAX_TOKENS {
            return Err(at(format!("there may be {MAX_TOKENS} tokens at most")));
        }
        tokens.push(Arc::new(token));
    }
    Ok(tokens.into())
}

/// Makes a new secret, and the line by which a server knows it.
///
/// # Errors
/// When the operating system has no random bytes, or a server would not take the line.
pub fn new_token(asked: &TokenRequest) -> io::Result<(String, String)> {
    let TokenRequest { name, rights, topics } = asked;
    let mut bytes = [0_u8; 32];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got != bytes.len() {
        return Err(Error::other("the operating system gave too few random bytes"));
    }
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let digest = TokenDigest::of(secret.as_bytes());
    let line = format!("{name} {digest} {rights} {topics}");
    Token::parse(&line).map_err(|why| Error::new(ErrorKind::InvalidInput, why))?;
    Ok((secret, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn a_hash_is_what_sha256sum_says() {
        // printf hello | sha256sum
        assert_eq!(TokenDigest::of(b"hello").to_string(), HASH);
        assert!(TokenDigest::parse(HASH).unwrap().equals(&TokenDigest::of(b"hello")));
        assert!(!TokenDigest::parse(HASH).unwrap().equals(&TokenDigest::of(b"hellO")));
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_taken_from_the_file() {
        let other = HASH.replace('2', "3");
        for (text, word) in [
            (format!("a {HASH} read"), "line 1: words: 3"),
            (format!("# ok\n\na {HASH} read * x"), "line 3: words: 5"),
            (format!("a/b {HASH} read *"), "name"),
            (format!("a {HASH}0 read *"), "64 hex digits"),
            (format!("a {} read *", HASH.replace('2', "g")), "64 hex digits"),
            (format!("a {HASH} write *"), "read, publish and admin"),
            (format!("a {HASH} read, *"), "read, publish and admin"),
            (format!("a {HASH} read a//b"), "topic"),
            (format!("a {HASH} read *\na {other} read *"), "line 2: name a"),
            (format!("a {HASH} read *\nb {HASH} read *"), "line 2: this hash"),
        ] {
            let why = parse(text.as_bytes()).err().unwrap().to_string();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(parse(b"\xff").is_err());
        assert_eq!(parse(format!("a {HASH} read,publish a.*,b\r\n").as_bytes()).unwrap().len(), 1);
    }
}
