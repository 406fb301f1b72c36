//! Rust source as text: without comments, strings and test code, and as tokens. A small lexer is
//! enough for the house rules, and it needs no parser crate.

/// The same text with comments, strings and character literals replaced by spaces. Lengths and line
/// breaks stay, so that a position in the result is one in the source.
pub fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let length = literal_length(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    String::from_utf8(code).expect("only whole characters are replaced")
}

/// The length of the comment, string or character literal at the start; 0 for anything else.
fn literal_length(rest: &[u8], before: Option<u8>) -> usize {
    let up_to = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|bytes| bytes == end);
        found.map_or(rest.len(), |position| from + position + end.len())
    };
    let is_in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => up_to(b"\n", 0) - 1,
        [b'/', b'*', ..] => up_to(b"*/", 2),
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !is_in_word || before == Some(b'b') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0;
            }
            up_to(&[b"\"".as_slice(), &b"#".repeat(hashes)].concat(), 2 + hashes)
        }
        // A lifetime has no closing quote.
        [b'\'', b'\\' | 0x80..=0xff, ..] | [b'\'', _, b'\'', ..] => quoted_length(rest, b'\''),
        _ => 0,
    }
}

/// The length of a literal that begins and ends with `quote` and may contain escapes.
fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The position just behind the block or the `;` that ends the item at the start of `code`.
pub fn item_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    // As in `use a::{b};`.
                    let is_statement = code[at + 1..].trim_start().starts_with(';');
                    let length = code[at + 1..].find(';').filter(|_| is_statement);
                    return at + 1 + length.map_or(0, |length| length + 1);
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Code without comments, strings and items under `#[cfg(test)]`.
pub fn program_code(text: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let code = blank_comments_and_strings(text);
    let mut rest = code.as_str();
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(ATTRIBUTE) {
        kept.push_str(before);
        rest = &after[item_end(after)..];
    }
    kept + rest
}

/// Whether a file contains only test code.
pub fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The identifiers, the `::`, and all other characters but white space, one by one.
pub fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn comments_and_strings_are_blanked_and_positions_stay() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b\n */ c", "a     \n    c"),
        (r#"f("x { \" y", 'z')"#, "f(          ,    )"),
        (r##"r#"a " b"# + br"c""##, "           + b    "),
        ("'a: loop { b'{' }", "'a: loop { b    }"),
        (r"['\'', '\u{1F600}', 'ä']", "[    ,            ,     ]"),
        ("for r in x", "for r in x"),
    ] {
        let blanked = blank_comments_and_strings(text);
        assert_eq!(blanked, expected, "{text}");
        assert_eq!(blanked.len(), text.len());
    }
}

#[test]
fn test_code_is_removed() {
    let text = "use a;\n#[cfg(test)]\nmod tests { fn f(x: [u8; 2]) { } }\nuse b;\n\
                #[cfg(test)]\nmod more;\n#[cfg(test)]\nuse c::{d, e};\nfn g() {}";
    assert_eq!(tokens(&program_code(text)).concat(), "usea;useb;fng(){}");
}

#[test]
fn tokens_are_words_double_colons_and_characters() {
    assert_eq!(
        tokens("use a::b_1 ;\n{&'x}"),
        ["use", "a", "::", "b_1", ";", "{", "&", "'", "x", "}"]
    );
}
