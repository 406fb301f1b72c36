//! Tokens: the right to read, publish or administer, for certain topics.
//!
//! The token file has only digests of the secrets, so reading the file gives no access.

use std::fmt::{self, Display};
use std::io::{self, Error, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};

use super::digest::TokenDigest;
use crate::config::TokenRequest;
use crate::http::{HeaderName, RequestHead};
use crate::limits::{MAX_TOKENS, TOKENS_FILE_BYTES};
use crate::names::{NAME_RULE, Name, Pattern, TopicSet};
use crate::problem::{Cause, Problem};
use crate::sync::Mutex;

/// A right that a token can have.
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

/// The right that a request needs, and the topics for which it needs it.
pub type RequiredRight = (Right, Vec<Pattern>);

/// A list of rights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rights(Vec<Right>);

impl Rights {
    /// Parses a comma-separated list.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(list: &str) -> Result<Rights, String> {
        let right =
            |word| Right::ALL.iter().find(|(_, name)| *name == word).map(|(right, _)| *right);
        let rights: Option<Vec<Right>> = list.split(',').map(right).collect();
        rights.map(Rights).ok_or_else(|| {
            format!("rights {list:?}: expected read, publish and admin, separated by commas")
        })
    }
}

/// A line of the token file.
pub struct Token {
    /// The public name, to which idempotency keys belong.
    pub name: Name,
    digest: TokenDigest,
    rights: Rights,
    topics: TopicSet,
}

impl Token {
    fn parse(line: &str) -> Result<Token, String> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, digest, rights, topics] = fields[..] else {
            return Err(format!(
                "{} fields; expected four, without spaces in them: NAME SHA256-IN-HEX RIGHTS TOPICS",
                fields.len()
            ));
        };
        Ok(Token {
            name: Name::new(name).ok_or_else(|| format!("name {name:?}: expected {NAME_RULE}"))?,
            digest: TokenDigest::parse(digest)
                .ok_or("invalid second field; expected a SHA-256 digest in 64 hex digits")?,
            rights: Rights::parse(rights)?,
            topics: TopicSet::parse(topics)?,
        })
    }

    fn check_right(&self, (right, topics): &RequiredRight) -> Result<(), Problem> {
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

/// The tokens of a file, which is reloaded when it changes.
pub struct TokenFile {
    path: PathBuf,
    content: Mutex<FileContent>,
    tokens: Mutex<Arc<[Arc<Token>]>>,
    /// Whether the last change was invalid, so that `tokens` are those before it.
    is_outdated: AtomicBool,
}

/// The content of the file, or the error from reading it.
struct FileContent {
    /// The content that was loaded, or refused as invalid.
    processed: Vec<u8>,
    /// A different content at the last read, which may be half written.
    pending: Option<Vec<u8>>,
}

/// The result of a change of the file.
pub enum TokenReload {
    /// The change was loaded; the number of tokens.
    Loaded(usize),
    /// The change is invalid; the error, and the number of tokens that stay in force.
    Failed(Error, usize),
}

impl TokenFile {
    pub fn open(path: &Path) -> io::Result<TokenFile> {
        let with_path =
            |e: Error| Error::new(e.kind(), format!("--tokens {}: {e}", path.display()));
        let text = read_file(path).map_err(with_path)?;
        let tokens = Mutex::new(parse_tokens(&text).map_err(with_path)?);
        let content = Mutex::new(FileContent { processed: text, pending: None });
        let is_outdated = AtomicBool::new(false);
        Ok(TokenFile { path: path.to_owned(), content, tokens, is_outdated })
    }

    /// The number of tokens, and whether they are outdated.
    pub fn status(&self) -> (usize, bool) {
        (self.tokens.lock().len(), self.is_outdated.load(Ordering::Relaxed))
    }

    /// Reads the file and compares its whole content, not its time stamps, so that a removed token is
    /// always revoked. A change is loaded when two consecutive reads agree.
    pub fn reload(&self) -> Option<TokenReload> {
        // An error from reading counts as content, so that it is reported once.
        let text = read_file(&self.path);
        let now = text.as_ref().map_or_else(|e| e.to_string().into_bytes(), Clone::clone);
        let mut content = self.content.lock();
        if content.processed == now {
            content.pending = None;
            return None;
        }
        if content.pending.as_ref() != Some(&now) {
            content.pending = Some(now);
            return None;
        }
        *content = FileContent { processed: now, pending: None };
        drop(content);
        let parsed = text.and_then(|text| parse_tokens(&text));
        self.is_outdated.store(parsed.is_err(), Ordering::Relaxed);
        Some(match parsed {
            Ok(tokens) => {
                let count = tokens.len();
                *self.tokens.lock() = tokens;
                TokenReload::Loaded(count)
            }
            Err(error) => TokenReload::Failed(error, self.status().0),
        })
    }

    pub fn authorize(
        &self,
        head: &RequestHead,
        required: &RequiredRight,
    ) -> Result<Arc<Token>, Problem> {
        let field = head.get(HeaderName::Authorization)?.ok_or_else(|| {
            unauthorized("missing token; expected header Authorization: Bearer TOKEN", "Bearer")
        })?;
        let secret = field
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
            .map(|(_, secret)| secret.trim())
            .filter(|secret| !secret.is_empty())
            .ok_or_else(|| {
                let detail = "header Authorization: expected the word Bearer, a space and a token";
                unauthorized(detail, "Bearer")
            })?;
        let digest = TokenDigest::of(secret.as_bytes());
        let token = self.find(&digest).ok_or_else(unknown_token)?;
        token.check_right(required)?;
        Ok(token)
    }

    pub fn recheck(&self, token: &Token, required: &RequiredRight) -> Result<(), Problem> {
        self.find(&token.digest).ok_or_else(unknown_token)?.check_right(required)
    }

    /// The token with this digest. All tokens are compared, so that the time reveals nothing.
    fn find(&self, digest: &TokenDigest) -> Option<Arc<Token>> {
        let tokens = Arc::clone(&self.tokens.lock());
        let mut found = None;
        for token in tokens.iter() {
            if token.digest.constant_time_eq(digest) {
                found = Some(token);
            }
        }
        found.cloned()
    }
}

fn unauthorized(detail: &str, challenge: &str) -> Problem {
    Problem::new(Cause::Unauthorized, detail).with_header("WWW-Authenticate", challenge)
}

fn unknown_token() -> Problem {
    unauthorized(
        "unknown token; expected one from the file of --tokens",
        "Bearer error=\"invalid_token\"",
    )
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // A pipe could be read only once, and opening it could block.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "expected a regular file"));
    }
    std::fs::File::open(path)?.take(TOKENS_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TOKENS_FILE_BYTES {
        let why = format!("the file is too large; expected at most {TOKENS_FILE_BYTES} bytes");
        return Err(Error::new(ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Parses a token file: one token per line; empty lines and lines that begin with `#` are skipped.
fn parse_tokens(text: &[u8]) -> io::Result<Arc<[Arc<Token>]>> {
    let invalid = |why: String| Error::new(ErrorKind::InvalidData, why);
    let text = std::str::from_utf8(text).map_err(|_| invalid("the file is not UTF-8".into()))?;
    let mut tokens: Vec<Arc<Token>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |why: String| invalid(format!("line {}: {why}", index + 1));
        let token = Token::parse(line).map_err(at_line)?;
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(at_line(format!("name {} is used twice", token.name)));
        }
        if tokens.iter().any(|other| other.digest.constant_time_eq(&token.digest)) {
            return Err(at_line("this digest is used twice, with different names".into()));
        }
        if tokens.len() == MAX_TOKENS {
            return Err(at_line(format!("too many tokens; expected at most {MAX_TOKENS}")));
        }
        tokens.push(Arc::new(token));
    }
    Ok(tokens.into())
}

/// Makes a new secret and its line for the token file.
///
/// # Errors
/// When the operating system has no random bytes, or when the line would be invalid.
pub fn new_token(request: &TokenRequest) -> io::Result<(String, String)> {
    let TokenRequest { name, rights, topics } = request;
    let mut bytes = [0_u8; 32];
    let count = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if count != bytes.len() {
        return Err(Error::other("the operating system returned too few random bytes"));
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

    const DIGEST: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn digest_is_that_of_sha256sum() {
        // printf hello | sha256sum
        assert_eq!(TokenDigest::of(b"hello").to_string(), DIGEST);
        assert!(TokenDigest::parse(DIGEST).unwrap().constant_time_eq(&TokenDigest::of(b"hello")));
        assert!(!TokenDigest::parse(DIGEST).unwrap().constant_time_eq(&TokenDigest::of(b"hellO")));
    }

    #[test]
    fn invalid_line_is_named_and_the_file_refused() {
        let other = DIGEST.replace('2', "3");
        for (text, word) in [
            (format!("a {DIGEST} read"), "line 1: 3 fields"),
            (format!("# ok\n\na {DIGEST} read * x"), "line 3: 5 fields"),
            (format!("a/b {DIGEST} read *"), "name"),
            (format!("a {DIGEST}0 read *"), "64 hex digits"),
            (format!("a {} read *", DIGEST.replace('2', "g")), "64 hex digits"),
            (format!("a {DIGEST} write *"), "read, publish and admin"),
            (format!("a {DIGEST} read, *"), "read, publish and admin"),
            (format!("a {DIGEST} read a//b"), "topic"),
            (format!("a {DIGEST} read *\na {other} read *"), "line 2: name a"),
            (format!("a {DIGEST} read *\nb {DIGEST} read *"), "line 2: this digest"),
        ] {
            let why = parse_tokens(text.as_bytes()).err().unwrap().to_string();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(parse_tokens(b"\xff").is_err());
        assert_eq!(
            parse_tokens(format!("a {DIGEST} read,publish a.*,b\r\n").as_bytes()).unwrap().len(),
            1
        );
    }
}
