//! The reference tokenizer.

use std::collections::{HashMap, HashSet};

use tokenizers::{AddedToken as HfAddedToken, ModelWrapper, Tokenizer as HfTokenizer};

use crate::decoder_steps::{add_text_cleanup, cleaned_up, steps_of, ByteRuns, Step};
use crate::text_per_token::TextPerToken;
use crate::{Failure, FailureKind};

pub struct Tokenizer {
    inner: HfTokenizer,
    id_limit: u32,
    text_per_token: TextPerToken,
    /// By id.
    added: Vec<AddedToken>,
    cleans_up: bool,
}

pub struct AddedToken {
    pub id: u32,
    pub text: String,
    pub special: bool,
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Refused, error.to_string().chars().take(300).collect::<String>())
}

/// A token that a file beside tokenizer.json names.
pub struct DeclaredToken {
    pub token: HfAddedToken,
    /// That the other file gives it; `None` where it gives none.
    pub id: Option<u32>,
    pub existing: Existing,
}

/// What becomes of a token of the same text that tokenizer.json itself adds.
#[derive(Clone, Copy, PartialEq)]
pub enum Existing {
    Kept,
    Replaced,
    /// It stays as it is but for being special.
    MadeSpecial,
}

/// A token that the vocabulary has keeps its id; the others get the next ones, whatever their file
/// says. One whose id tokenizer.json gives to another added token, or for which there is no id left
/// because the vocabulary has holes, is not added: its text stays ordinary text.
fn add_declared(inner: &mut HfTokenizer, declared: Vec<DeclaredToken>) {
    let own = inner.get_added_tokens_decoder();
    let by_text: HashMap<String, HfAddedToken> =
        own.values().map(|token| (token.content.clone(), token.clone())).collect();
    let size = inner.get_vocab_size(false) as u32;
    let mut next = own.keys().max().map_or(size, |last| size.max(last.saturating_add(1)));
    let mut new = HashSet::new();
    let mut tokens = Vec::with_capacity(declared.len());
    for DeclaredToken { mut token, id, existing } in declared {
        if let Some(known) = by_text.get(&token.content) {
            match existing {
                Existing::Kept => continue,
                Existing::Replaced => {}
                Existing::MadeSpecial => token = HfAddedToken { special: true, ..known.clone() },
            }
        } else if id.is_some_and(|id| own.contains_key(&id)) {
            continue;
        } else if inner.token_to_id(&token.content).is_none() && !new.contains(&token.content) {
            if inner.id_to_token(next).is_some() {
                continue;
            }
            next = next.saturating_add(1);
            new.insert(token.content.clone());
        }
        tokens.push(token);
    }
    inner.add_tokens(&tokens);
}

impl Tokenizer {
    /// `declared` are further tokens, added like transformers adds those that other files name. With
    /// `split_special_tokens` the text of a special token is ordinary text.
    pub fn load(
        bytes: &[u8],
        declared: Vec<DeclaredToken>,
        split_special_tokens: bool,
    ) -> Result<Tokenizer, Failure> {
        let mut inner = HfTokenizer::from_bytes(bytes).map_err(refused)?;
        add_declared(&mut inner, declared);
        inner.set_encode_special_tokens(split_special_tokens);
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
        let text_per_token = TextPerToken::of(&inner);
        Ok(Tokenizer { inner, id_limit, text_per_token, added, cleans_up: false })
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
        let text = self.inner.decode(ids, skip_special_tokens).map_err(refused)?;
        Ok(if self.cleans_up { cleaned_up(text) } else { text })
    }

    /// Decoding from now on takes spaces away that stand before punctuation and the like.
    pub fn clean_up(&mut self) {
        self.cleans_up = true;
    }

    pub fn is_bpe(&self) -> bool {
        matches!(self.inner.get_model(), ModelWrapper::BPE(_))
    }

    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// What decoding does to the pieces of tokens.
    pub fn decoder_steps(&self, byte_runs: ByteRuns) -> Vec<Box<dyn Step>> {
        let mut steps = steps_of(self.inner.get_decoder(), byte_runs);
        if self.cleans_up {
            add_text_cleanup(&mut steps);
        }
        steps
    }

    pub fn is_special(&self, piece: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(piece)
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

    pub fn byte_of(&self, character: char) -> Option<u8> {
        self.byte_of.get(character as usize).copied().flatten()
    }
}
