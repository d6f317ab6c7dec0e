//! The reference tokenizer, and decoding token by token.

use std::sync::Arc;

use tokenizers::{AddedToken as HfAddedToken, DecoderWrapper, Tokenizer as HfTokenizer};

use crate::text_per_token::TextPerToken;
use crate::{Failure, FailureKind};

pub struct Tokenizer {
    inner: HfTokenizer,
    id_limit: u32,
    text_per_token: TextPerToken,
    /// By id.
    added: Vec<AddedToken>,
    /// GPT-2's alphabet, where the decoder is byte level: the byte that each character stands for.
    byte_level: Option<ByteAlphabet>,
}

pub struct AddedToken {
    pub id: u32,
    pub text: String,
    pub special: bool,
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Refused, error.to_string().chars().take(300).collect::<String>())
}

/// A token that the vocabulary has keeps its id; the others get the next ones. One for which the
/// model has no id left is not added: its text stays ordinary text.
fn add_declared(inner: &mut HfTokenizer, mut declared: Vec<HfAddedToken>, most_ids: u32) {
    let size = inner.get_vocab_size(false) as u32;
    let last_added = inner.get_added_tokens_decoder().into_keys().max();
    let mut next = last_added.map_or(size, |last| size.max(last.saturating_add(1)));
    let mut new = std::collections::HashSet::new();
    declared.retain(|token| {
        if inner.token_to_id(&token.content).is_some() || new.contains(&token.content) {
            return true;
        }
        let has_place = next < most_ids && inner.id_to_token(next).is_none();
        if has_place {
            next += 1;
            new.insert(token.content.clone());
        }
        has_place
    });
    inner.add_tokens(&declared);
}

impl Tokenizer {
    /// `declared` are further tokens, added like transformers adds those that only its configuration
    /// names; their ids stay below `most_ids`.
    pub fn load(
        bytes: &[u8],
        declared: Vec<HfAddedToken>,
        most_ids: u32,
    ) -> Result<Tokenizer, Failure> {
        let mut inner = HfTokenizer::from_bytes(bytes).map_err(refused)?;
        add_declared(&mut inner, declared, most_ids);
        // Padding and truncation belong to training pipelines; transformers resets both per call.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(refused)?;
        let mut ids: Vec<u32> = inner.get_vocab(true).into_values().collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refused(format!("two tokens have the id {}", pair[0])));
        }
        let last_id = *ids.last().ok_or_else(|| refused("the vocabulary is empty"))?;
        let id_limit = last_id.checked_add(1).filter(|limit| *limit <= i32::MAX as u32);
        let id_limit = id_limit.ok_or_else(|| refused("token ids must be below 2^31"))?;
        // A token may have become special by a later declaration.
        let is_special = |text: &str| inner.get_added_vocabulary().is_special_token(text);
        let mut added: Vec<AddedToken> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| {
                let special = is_special(&token.content);
                AddedToken { id, text: token.content, special }
            })
            .collect();
        added.sort_by_key(|token| token.id);
        let byte_level = match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => Some(ByteAlphabet::new()),
            _ => None,
        };
        let text_per_token = TextPerToken::of(&inner);
        Ok(Tokenizer { inner, id_limit, text_per_token, added, byte_level })
    }

    /// One more than the largest id.
    pub fn id_limit(&self) -> u32 {
        self.id_limit
    }

    /// Of the ids of a text; 0 where nothing is known.
    pub fn fewest_tokens(&self, text: &[u8]) -> usize {
        self.text_per_token.fewest_tokens(text)
    }

    pub fn added(&self) -> &[AddedToken] {
        &self.added
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Failure> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(refused)?;
        Ok(encoding.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Failure> {
        self.inner.decode(ids, skip_special_tokens).map_err(refused)
    }

    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn is_special(&self, id: u32) -> bool {
        let place = self.added.binary_search_by_key(&id, |token| token.id);
        place.is_ok_and(|place| self.added[place].special)
    }
}

/// GPT-2's stand-ins for bytes: printable Latin-1 characters stand for themselves, the other bytes
/// in order for the characters from U+0100 on.
pub struct ByteAlphabet {
    byte_of: Vec<Option<u8>>, // by character
}

impl ByteAlphabet {
    pub fn new() -> ByteAlphabet {
        let mut byte_of = vec![None; 512];
        let mut next = 256;
        for byte in 0..=255u8 {
            if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                byte_of[byte as usize] = Some(byte);
            } else {
                byte_of[next] = Some(byte);
                next += 1;
            }
        }
        ByteAlphabet { byte_of }
    }

    pub fn characters(&self) -> impl Iterator<Item = (char, u8)> + '_ {
        let characters = (0u32..).map_while(char::from_u32);
        characters.zip(&self.byte_of).filter_map(|(c, byte)| byte.map(|byte| (c, byte)))
    }

    /// A piece with a character outside the alphabet (an added token) stands for its own bytes.
    fn bytes_of(&self, piece: &str) -> Vec<u8> {
        let bytes = piece.chars().map(|c| self.byte_of.get(c as usize).copied().flatten());
        bytes.collect::<Option<Vec<u8>>>().unwrap_or_else(|| piece.as_bytes().to_vec())
    }
}

/// Turns token ids into text as they come. The pieces of text joined equal the decoding of all ids
/// at once; none ends within a character.
///
/// Byte-level decoders are followed byte by byte. Others are not functions of single tokens (the
/// first token loses its space, byte tokens are judged run by run), so there the text of a new
/// token is what it adds to the text of those before it, and a run of byte tokens waits for its end.
pub struct StreamingDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    pending_bytes: Vec<u8>,
    /// The tokens of the last text given out, then those not yet given out.
    window: Vec<u32>,
    context_length: usize,
}

impl StreamingDecoder {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> StreamingDecoder {
        let (pending_bytes, window) = (Vec::new(), Vec::new());
        StreamingDecoder {
            tokenizer,
            skip_special_tokens,
            pending_bytes,
            window,
            context_length: 0,
        }
    }

    pub fn push(&mut self, id: u32) -> Result<String, Failure> {
        let Some(piece) = self.tokenizer.piece(id) else { return Ok(String::new()) };
        if self.skip_special_tokens && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        if let Some(alphabet) = &self.tokenizer.byte_level {
            self.pending_bytes.extend(alphabet.bytes_of(&piece));
            return Ok(self.take_characters());
        }
        self.window.push(id);
        if is_byte_token(&piece) {
            return Ok(String::new());
        }
        self.take_window()
    }

    pub fn flush(&mut self) -> Result<String, Failure> {
        let bytes = std::mem::take(&mut self.pending_bytes);
        if self.tokenizer.byte_level.is_some() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        let text = self.take_window();
        self.window.clear();
        self.context_length = 0;
        text
    }

    /// Everything but an incomplete character at the end, which later bytes may complete.
    fn take_characters(&mut self) -> String {
        let mut text = String::new();
        let mut rest = &self.pending_bytes[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        let kept = self.pending_bytes.len() - rest.len();
        self.pending_bytes.drain(..kept);
        text
    }

    fn take_window(&mut self) -> Result<String, Failure> {
        let context = self.tokenizer.decode(&self.window[..self.context_length], false)?;
        let whole = self.tokenizer.decode(&self.window, false)?;
        let Some(added) = whole.strip_prefix(&context).filter(|added| !added.is_empty()) else {
            return Ok(String::new());
        };
        self.window.drain(..self.context_length);
        self.context_length = self.window.len();
        Ok(added.to_string())
    }
}

/// "<0xE2>" of byte-fallback vocabularies.
fn is_byte_token(piece: &str) -> bool {
    let digits = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
