//! The messages of a WebSocket's client, from its frames (RFC 6455, sections 5 to 7).
//!
//! Each rule is checked at the first byte that can break it, so that no frame is waited for that
//! will be refused. `tungstenite` reads frames less strictly: it takes a set top bit of a length for
//! a large message, accepts lengths in more bytes than needed, and knows no close code 1014.

use std::io::{self, BufRead, ErrorKind, Read};

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The client's next message that needs an answer.
pub enum ClientMessage {
    Text(Vec<u8>),
    Ping(Vec<u8>),
}

/// Why no further message is read.
pub enum MessagesEnd {
    /// The connection ended without a close frame.
    HungUp,
    /// The client closed or broke a rule: it gets a close frame with this code.
    Closed(CloseCode),
}

impl From<io::Error> for MessagesEnd {
    fn from(_: io::Error) -> MessagesEnd {
        MessagesEnd::HungUp
    }
}

const BROKEN_RULE: MessagesEnd = MessagesEnd::Closed(CloseCode::Protocol);

/// Bits of a frame's first byte.
const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
/// The bit of a frame's second byte that says that a mask follows; the others begin the length.
const MASKED: u8 = 0x80;
/// The longest payload of a control frame, and the longest length in a frame's second byte.
const SHORT: u8 = 125;

/// Reads messages from `input`.
pub struct MessageReader<R> {
    input: R,
    max_message: usize,
    /// The text of which the last fragment has not arrived.
    fragments: Option<Vec<u8>>,
}

impl<R: BufRead> MessageReader<R> {
    /// A reader of messages of at most `max_message` bytes.
    pub fn new(input: R, max_message: usize) -> MessageReader<R> {
        MessageReader { input, max_message, fragments: None }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// At the end of the connection, at a close frame, and at the first byte that breaks a rule.
    pub fn read(&mut self) -> Result<ClientMessage, MessagesEnd> {
        loop {
            let [first, second] = self.read_array()?;
            let opcode = OpCode::from(first & OPCODE);
            let is_last = first & LAST != 0;
            if first & RESERVED != 0 || second & MASKED == 0 || !self.may_follow(opcode, is_last) {
                return Err(BROKEN_RULE);
            }
            let length = self.read_length(opcode, second & !MASKED)?;
            let length = self.check_length(opcode, length)?;
            let mask = self.read_array()?;
            match opcode {
                OpCode::Control(control) => {
                    let payload = self.read_payload(Vec::new(), length, mask)?;
                    match control {
                        Control::Close => return Err(MessagesEnd::Closed(close_code(&payload))),
                        Control::Ping => return Ok(ClientMessage::Ping(payload)),
                        // A pong that answers a heartbeat, or nothing (section 5.5.3).
                        _ => {}
                    }
                }
                OpCode::Data(_) => {
                    let before = self.fragments.take().unwrap_or_default();
                    let text = self.read_payload(before, length, mask)?;
                    if !is_last {
                        self.fragments = Some(text);
                    } else if std::str::from_utf8(&text).is_ok() {
                        return Ok(ClientMessage::Text(text));
                    } else {
                        return Err(MessagesEnd::Closed(CloseCode::Invalid));
                    }
                }
            }
        }
    }

    /// Whether a frame of this kind is defined and may follow the frames before it: control frames
    /// are whole, and messages do not overlap (section 5.4).
    fn may_follow(&self, opcode: OpCode, is_last: bool) -> bool {
        match opcode {
            OpCode::Data(Data::Continue) => self.fragments.is_some(),
            OpCode::Data(Data::Text | Data::Binary) => self.fragments.is_none(),
            OpCode::Control(Control::Close | Control::Ping | Control::Pong) => is_last,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => false,
        }
    }

    /// Reads a payload's length, whose form is the shortest one and has no top bit (section 5.2).
    fn read_length(&mut self, opcode: OpCode, start: u8) -> Result<u64, MessagesEnd> {
        let (length, least) = match start {
            ..=SHORT => return Ok(start.into()),
            _ if matches!(opcode, OpCode::Control(_)) => return Err(BROKEN_RULE),
            126 => (u16::from_be_bytes(self.read_array()?).into(), u64::from(SHORT) + 1),
            _ => (u64::from_be_bytes(self.read_array()?), u64::from(u16::MAX) + 1),
        };
        if length < least || length > i64::MAX as u64 {
            return Err(BROKEN_RULE);
        }
        Ok(length)
    }

    /// Checks that the server takes a frame of this kind and length.
    fn check_length(&self, opcode: OpCode, length: u64) -> Result<usize, MessagesEnd> {
        let before = self.fragments.as_ref().map_or(0, Vec::len);
        let allowed = match opcode {
            OpCode::Data(Data::Binary) => {
                return Err(MessagesEnd::Closed(CloseCode::Unsupported));
            }
            OpCode::Data(_) => self.max_message - before,
            OpCode::Control(_) => SHORT.into(),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= allowed);
        length.ok_or(MessagesEnd::Closed(CloseCode::Size))
    }

    /// Reads a payload to the end of `into`, whose memory grows with what arrives.
    fn read_payload(
        &mut self,
        mut into: Vec<u8>,
        length: usize,
        mask: [u8; 4],
    ) -> io::Result<Vec<u8>> {
        let start = into.len();
        let received = self.input.by_ref().take(length as u64).read_to_end(&mut into)?;
        if received < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for word in into[start..].chunks_mut(mask.len()) {
            for (byte, mask) in word.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        Ok(into)
    }

    fn read_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The code that answers a close frame with this payload: the client's own, if a client may send it
/// (section 7.4, and the registry of IANA, which added 1012 to 1014).
fn close_code(payload: &[u8]) -> CloseCode {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { CloseCode::Normal } else { CloseCode::Protocol };
    };
    match u16::from_be_bytes(*code) {
        _ if std::str::from_utf8(reason).is_err() => CloseCode::Invalid,
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => code.into(),
        _ => CloseCode::Protocol,
    }
}
