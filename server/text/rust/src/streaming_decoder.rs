//! Decoding token by token.

use std::sync::Arc;

use crate::decoder_steps::{ByteRuns, Part, Parts, Step};
use crate::sourced_text::{Source, SourcedText};
use crate::tokenizer::Tokenizer;

/// Turns token ids into text as they come. The pieces of text joined equal the decoding of all ids
/// at once; none ends within a character.
pub struct StreamingDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    steps: Vec<Box<dyn Step>>,
    pushed: u32,
}

impl StreamingDecoder {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> StreamingDecoder {
        let steps = tokenizer.decoder_steps(ByteRuns::Whole);
        StreamingDecoder { tokenizer, skip_special_tokens, steps, pushed: 0 }
    }

    /// The text in which stop strings are looked for: with special tokens, and with the characters of
    /// byte tokens as soon as they are complete, whatever follows.
    pub fn for_stop_strings(tokenizer: Arc<Tokenizer>) -> StreamingDecoder {
        let steps = tokenizer.decoder_steps(ByteRuns::AsTheyCome);
        StreamingDecoder { tokenizer, skip_special_tokens: false, steps, pushed: 0 }
    }

    pub fn push(&mut self, id: u32) -> SourcedText {
        let source = Source { first: self.pushed, last: self.pushed };
        self.pushed += 1;
        let Some(piece) = self.tokenizer.piece(id) else { return SourcedText::default() };
        if self.skip_special_tokens && self.tokenizer.is_special(&piece) {
            return SourcedText::default();
        }
        let mut parts = vec![Part::End(source)];
        if !piece.is_empty() {
            parts.insert(0, Part::Text(SourcedText::of(&piece, source)));
        }
        for step in &mut self.steps {
            parts = through(step.as_mut(), parts);
        }
        text_of(parts)
    }

    /// What is left at the end. The decoder is then as new.
    pub fn flush(&mut self) -> SourcedText {
        let mut parts = Parts::new();
        for step in &mut self.steps {
            parts = through(step.as_mut(), parts);
            step.finish(&mut parts);
        }
        self.pushed = 0;
        text_of(parts)
    }
}

fn through(step: &mut dyn Step, parts: Parts) -> Parts {
    let mut out = Parts::new();
    for part in parts {
        match part {
            Part::Text(text) => step.text(text, &mut out),
            Part::End(source) => step.end(source, &mut out),
        }
    }
    out
}

fn text_of(parts: Parts) -> SourcedText {
    let mut text = SourcedText::default();
    for part in parts {
        if let Part::Text(more) = part {
            text.append(more);
        }
    }
    text
}
