//! How few tokens a text may have, told without tokenising it.

use tokenizers::{
    ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    Tokenizer as HfTokenizer,
};

use crate::tokenizer::ByteAlphabet;

const NO_BOUND: usize = usize::MAX;
/// A normal form turns at most four bytes into one: a mathematical letter into a plain one.
const NORMAL_FORM_SHRINKS: usize = 4;

pub struct TextPerToken {
    /// Bytes of those that count which one token may stand for.
    most: usize,
    /// By byte: whether a text's byte is in some token, whatever is beside it. Bytes that the
    /// vocabulary has nothing for are left out of the ids.
    counts: [bool; 256],
}

impl TextPerToken {
    pub fn of(tokenizer: &HfTokenizer) -> Self {
        let swallows = tokenizer.get_pre_tokenizer().is_some_and(leaves_text_out)
            || tokenizer
                .get_added_tokens_decoder()
                .values()
                .any(|token| token.lstrip || token.rstrip);
        let shrinks = tokenizer.get_normalizer().map_or(1, bytes_per_normalized_byte);
        match bytes_in_tokens(tokenizer) {
            // What a normalizer makes of a byte may be one that is left out.
            Some(counts) if !swallows && (shrinks == 1 || !counts.contains(&false)) => {
                Self { most: longest(tokenizer).saturating_mul(shrinks), counts }
            }
            _ => Self { most: NO_BOUND, counts: [true; 256] },
        }
    }

    pub fn fewest_tokens(&self, text: &[u8]) -> usize {
        text.iter().filter(|byte| self.counts[usize::from(**byte)]).count() / self.most
    }
}

fn longest(tokenizer: &HfTokenizer) -> usize {
    // A byte-level vocabulary writes a byte as one character.
    let byte_level = is_byte_level(tokenizer);
    let bytes = |token: &String| if byte_level { token.chars().count() } else { token.len() };
    let own = tokenizer.get_vocab(false).keys().map(bytes).max();
    let added =
        tokenizer.get_added_tokens_decoder().values().map(|token| token.content.len()).max();
    // A token outside the vocabulary may still stand for one character.
    own.max(added).unwrap_or(0).max(char::MAX.len_utf8())
}

fn bytes_per_normalized_byte(normalizer: &NormalizerWrapper) -> usize {
    use NormalizerWrapper as N;
    match normalizer {
        N::NFC(_) | N::NFD(_) | N::NFKC(_) | N::NFKD(_) | N::Lowercase(_) => NORMAL_FORM_SHRINKS,
        N::Prepend(_) | N::ByteLevel(_) => 1,
        N::Replace(replace) if replaces_space_by_mark(replace) => 1,
        N::Sequence(all) => {
            all.as_ref().iter().map(bytes_per_normalized_byte).fold(1, usize::saturating_mul)
        }
        _ => NO_BOUND,
    }
}

/// SentencePiece's: the mark is longer than the space.
fn replaces_space_by_mark(replace: &tokenizers::normalizers::Replace) -> bool {
    let written = serde_json::to_value(replace).unwrap_or_default();
    written["pattern"]["String"] == " " && written["content"] == "\u{2581}"
}

fn leaves_text_out(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    use PreTokenizerWrapper as P;
    match pre_tokenizer {
        P::ByteLevel(_) | P::Metaspace(_) | P::Digits(_) | P::UnicodeScripts(_) => false,
        P::FixedLength(_) => false,
        P::Split(split) => split.behavior == SplitDelimiterBehavior::Removed,
        P::Sequence(all) => all.as_ref().iter().any(leaves_text_out),
        _ => true,
    }
}

/// The bytes that are neither left out nor joined with others into one token for the unknown; None
/// where that depends on more than the byte.
fn bytes_in_tokens(tokenizer: &HfTokenizer) -> Option<[bool; 256]> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
    if model.unk_token.is_some() && !model.fuse_unk {
        return Some([true; 256]);
    }
    let vocabulary = model.get_vocab();
    if is_byte_level(tokenizer) && model.unk_token.is_none() {
        let mut counts = [false; 256];
        for (character, byte) in ByteAlphabet::new().characters() {
            counts[usize::from(byte)] = vocabulary.contains_key(&character.to_string());
        }
        return Some(counts);
    }
    let has_every_byte = model.byte_fallback
        && (0..=255u8).all(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>")));
    has_every_byte.then_some([true; 256])
}

fn is_byte_level(tokenizer: &HfTokenizer) -> bool {
    let within = |pre_tokenizer: &PreTokenizerWrapper| match pre_tokenizer {
        PreTokenizerWrapper::Sequence(all) => {
            all.as_ref().iter().any(|one| matches!(one, PreTokenizerWrapper::ByteLevel(_)))
        }
        one => matches!(one, PreTokenizerWrapper::ByteLevel(_)),
    };
    tokenizer.get_pre_tokenizer().is_some_and(within)
        || matches!(tokenizer.get_normalizer(), Some(NormalizerWrapper::ByteLevel(_)))
}
