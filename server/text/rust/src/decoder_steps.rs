//! The decoders of tokenizer.json as steps that text goes through as it comes. Each step gives out
//! what no later token can change and holds the rest; what all tokens and the end give is what the
//! library's decoder makes of the tokens at once.
//!
//! A decoder turns a list of tokens into another one. Here a token is any number of parts and an
//! end, because Fuse and ByteLevel make one token of all that come.

use tokenizers::decoders::metaspace::PrependScheme;
use tokenizers::{Decoder, DecoderWrapper};

use crate::sourced_text::{Source, SourcedText};
use crate::tokenizer::ByteAlphabet;

pub enum Part {
    Text(SourcedText), // not empty
    End(Source),
}

pub type Parts = Vec<Part>;

pub trait Step: Send {
    fn text(&mut self, text: SourcedText, out: &mut Parts);
    /// The token is complete, which comes from `source`.
    fn end(&mut self, source: Source, out: &mut Parts);
    /// No token follows; the step is then as new.
    fn finish(&mut self, out: &mut Parts);
}

/// How bytes become characters that a run of byte tokens spells.
#[derive(Clone, Copy, PartialEq)]
pub enum ByteRuns {
    /// As the library does: all of them, or none where the run is not UTF-8 as a whole.
    Whole,
    /// Each as soon as it is complete, whatever follows.
    AsTheyCome,
}

/// The steps of a tokenizer's decoder; without one, tokens are joined by spaces.
pub fn steps_of(decoder: Option<&DecoderWrapper>, byte_runs: ByteRuns) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = Vec::new();
    match decoder {
        Some(decoder) => add_steps(decoder, byte_runs, &mut steps),
        None => steps.push(Box::new(Spaced { first: true, begun: false })),
    }
    steps
}

fn add_steps(decoder: &DecoderWrapper, byte_runs: ByteRuns, steps: &mut Vec<Box<dyn Step>>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            for one in sequence.get_decoders() {
                add_steps(one, byte_runs, steps);
            }
        }
        DecoderWrapper::BPE(bpe) => steps.push(Box::new(WordEnds::new(&bpe.suffix))),
        DecoderWrapper::ByteLevel(_) => steps.push(Box::new(Bytes::new())),
        DecoderWrapper::ByteFallback(_) => steps.push(Box::new(ByteTokens::new(byte_runs))),
        DecoderWrapper::Fuse(_) => steps.push(Box::new(Fuse::default())),
        DecoderWrapper::Strip(strip) => {
            steps.push(Box::new(Strip::new(strip.content, strip.start, strip.stop)))
        }
        DecoderWrapper::Metaspace(metaspace) => steps.push(Box::new(Marks {
            mark: metaspace.get_replacement(),
            drops_first: metaspace.get_prepend_scheme() != PrependScheme::Never,
            first: true,
        })),
        DecoderWrapper::Replace(replace) => {
            let written = serde_json::to_value(replace).unwrap_or_default();
            match written["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => {
                    steps.push(Box::new(Replace::new(pattern, &replace.content)))
                }
                _ => {
                    let replace = replace.clone();
                    steps.push(Box::new(WholeTokens::new(move |text: String| {
                        let tokens = replace.decode_chain(vec![text.clone()]);
                        tokens.map(|tokens| tokens.concat()).unwrap_or(text)
                    })));
                }
            }
        }
        DecoderWrapper::WordPiece(word_piece) => {
            steps.push(Box::new(Words::new(&word_piece.prefix)));
            if word_piece.cleanup {
                add_cleanup(&WORD_PIECE_CLEANUP, steps);
            }
        }
        DecoderWrapper::CTC(ctc) => {
            steps.push(Box::new(Repeats::default()));
            steps.push(replace_all(&ctc.pad_token, ""));
            if ctc.cleanup {
                add_cleanup(&WORD_PIECE_CLEANUP, steps);
                steps.push(replace_all(&ctc.word_delimiter_token, " "));
            }
            steps.push(Box::new(Empties::default()));
        }
    }
}

/// What the library's WordPiece and CTC decoders do to every token.
const WORD_PIECE_CLEANUP: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// What transformers does to a whole text where a tokenizer's configuration says so.
const TEXT_CLEANUP: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

pub fn cleaned_up(text: String) -> String {
    TEXT_CLEANUP.iter().fold(text, |text, (pattern, content)| text.replace(pattern, content))
}

/// Makes `cleaned_up` part of what a decoder does.
pub fn add_text_cleanup(steps: &mut Vec<Box<dyn Step>>) {
    steps.push(Box::new(Fuse::default()));
    add_cleanup(&TEXT_CLEANUP, steps);
}

fn add_cleanup(rules: &[(&str, &str)], steps: &mut Vec<Box<dyn Step>>) {
    for (pattern, content) in rules {
        steps.push(Box::new(Replace::new(pattern, content)));
    }
}

fn replace_all(pattern: &str, content: &'static str) -> Box<dyn Step> {
    if pattern.is_empty() {
        // Between any two characters.
        return Box::new(WholeTokens::new(move |text: String| text.replace("", content)));
    }
    Box::new(Replace::new(pattern, content))
}

fn give(text: SourcedText, out: &mut Parts) {
    if !text.is_empty() {
        out.push(Part::Text(text));
    }
}

/// Every `pattern` becomes `content`. Gives what comes before the last one and takes it from `text`.
fn replaced(text: &mut SourcedText, pattern: &str, content: &str) -> SourcedText {
    let places: Vec<usize> = text.text().match_indices(pattern).map(|(place, _)| place).collect();
    let mut done = SourcedText::default();
    let mut pieces = text.take().pieces();
    let mut end = 0;
    for place in places {
        done.append(pieces.next(place - end));
        if let Some(source) = pieces.next(pattern.len()).source() {
            done.push(content, source);
        }
        end = place + pattern.len();
    }
    *text = pieces.rest();
    done
}

/// Of every start of the pattern: how long its longest shorter start is that it ends with.
fn borders_of(pattern: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; pattern.len()];
    for end in 1..pattern.len() {
        let mut size = borders[end - 1];
        while size > 0 && pattern[size] != pattern[end] {
            size = borders[size - 1];
        }
        borders[end] = size + usize::from(pattern[size] == pattern[end]);
    }
    borders
}

/// Every `pattern`, which is not empty, becomes `content`.
struct Replace {
    pattern: String,
    content: String,
    borders: Vec<usize>, // of the pattern
    held: SourcedText,   // may begin the pattern
}

impl Replace {
    fn new(pattern: &str, content: &str) -> Replace {
        let (borders, held) = (borders_of(pattern.as_bytes()), SourcedText::default());
        Replace { pattern: pattern.to_string(), content: content.to_string(), borders, held }
    }

    /// The longest end of what is held that begins the pattern, in bytes.
    fn beginning(&self) -> usize {
        let text = self.held.text().as_bytes();
        let pattern = self.pattern.as_bytes();
        let most = text.len().min(pattern.len() - 1);
        let mut size = 0;
        for byte in &text[text.len() - most..] {
            while size > 0 && pattern[size] != *byte {
                size = self.borders[size - 1];
            }
            size += usize::from(pattern[size] == *byte);
        }
        size
    }
}

impl Step for Replace {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        self.held.append(text);
        let mut done = replaced(&mut self.held, &self.pattern, &self.content);
        let rest = self.held.text().len() - self.beginning();
        done.append(self.held.split_off_front(rest));
        give(done, out);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        give(self.held.take(), out);
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {}
}

/// A change that needs whole tokens.
struct WholeTokens<F> {
    change: F,
    held: SourcedText,
}

impl<F: Fn(String) -> String> WholeTokens<F> {
    fn new(change: F) -> WholeTokens<F> {
        WholeTokens { change, held: SourcedText::default() }
    }
}

impl<F: Fn(String) -> String + Send> Step for WholeTokens<F> {
    fn text(&mut self, text: SourcedText, _out: &mut Parts) {
        self.held.append(text);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        let text = (self.change)(self.held.take().into_text());
        give(SourcedText::of(&text, source), out);
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {}
}

/// One token of all.
#[derive(Default)]
struct Fuse {
    source: Source,
}

impl Step for Fuse {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        give(text, out);
    }

    fn end(&mut self, source: Source, _out: &mut Parts) {
        self.source = self.source.to(source);
    }

    fn finish(&mut self, out: &mut Parts) {
        out.push(Part::End(std::mem::take(&mut self.source)));
    }
}

/// Takes up to so many of a character from a token's start and stop.
struct Strip {
    content: char,
    start: usize,
    stop: usize,
    left: usize, // of start, within this token
    held: SourcedText,
}

impl Strip {
    fn new(content: char, start: usize, stop: usize) -> Strip {
        Strip { content, start, stop, left: start, held: SourcedText::default() }
    }
}

impl Step for Strip {
    fn text(&mut self, mut text: SourcedText, out: &mut Parts) {
        let leading = text.text().chars().take(self.left).take_while(|c| *c == self.content);
        let leading = leading.count();
        self.left -= leading;
        if leading > 0 {
            text.split_off_front(leading * self.content.len_utf8());
        }
        if text.is_empty() {
            return;
        }
        self.left = 0;
        self.held.append(text);
        let held = self.held.text();
        let trailing = held.len() - held.trim_end_matches(self.content).len();
        let kept = trailing.min(self.stop.saturating_mul(self.content.len_utf8()));
        let rest = held.len() - kept;
        give(self.held.split_off_front(rest), out);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        self.held.take();
        self.left = self.start;
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {}
}

/// Metaspace's marks for spaces.
struct Marks {
    mark: char,
    drops_first: bool, // those of the first token
    first: bool,
}

impl Step for Marks {
    fn text(&mut self, mut text: SourcedText, out: &mut Parts) {
        let space = if self.first && self.drops_first { "" } else { " " };
        let mark = self.mark.to_string();
        let mut done = replaced(&mut text, &mark, space);
        done.append(text);
        give(done, out);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        self.first = false;
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {
        self.first = true;
    }
}

/// WordPiece: tokens that continue a word lose their prefix, others but the first get a space.
struct Words {
    prefix: String,
    first: bool,
    begun: bool, // the token, beyond its prefix
    held: SourcedText,
}

impl Words {
    fn new(prefix: &str) -> Words {
        let held = SourcedText::default();
        Words { prefix: prefix.to_string(), first: true, begun: false, held }
    }

    fn begin(&mut self, source: Source, out: &mut Parts) {
        self.begun = true;
        let mut held = self.held.take();
        if held.text().starts_with(&self.prefix) {
            held.split_off_front(self.prefix.len());
        } else {
            give(SourcedText::of(" ", source.begin()), out);
        }
        give(held, out);
    }
}

impl Step for Words {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        if self.first || self.begun {
            return give(text, out);
        }
        self.held.append(text);
        let held = self.held.text();
        let undecided = held.len() < self.prefix.len() && self.prefix.starts_with(held);
        if let Some(source) = self.held.source().filter(|_| !undecided) {
            self.begin(source, out);
        }
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        if !self.first && !self.begun {
            self.begin(source, out);
        }
        self.begun = false;
        self.first = false;
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {
        self.first = true;
    }
}

/// Tokens joined by spaces.
struct Spaced {
    first: bool,
    begun: bool,
}

impl Spaced {
    fn begin(&mut self, source: Source, out: &mut Parts) {
        if !self.first && !self.begun {
            give(SourcedText::of(" ", source.begin()), out);
        }
        self.begun = true;
    }
}

impl Step for Spaced {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        if let Some(source) = text.source() {
            self.begin(source, out);
        }
        give(text, out);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        self.begin(source, out);
        (self.first, self.begun) = (false, false);
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {
        self.first = true;
    }
}

/// BPEDecoder: the ends of words become spaces, but not that of the last token, which is known once
/// another follows.
struct WordEnds {
    suffix: String,
    held: SourcedText,
    waiting: Option<(SourcedText, Source)>, // a complete token with ends of words
}

impl WordEnds {
    fn new(suffix: &str) -> WordEnds {
        let held = SourcedText::default();
        WordEnds { suffix: suffix.to_string(), held, waiting: None }
    }

    fn give_waiting(&mut self, space: &str, out: &mut Parts) {
        let Some((mut text, source)) = self.waiting.take() else { return };
        if self.suffix.is_empty() {
            text = SourcedText::of(&text.text().replace("", space), source);
        } else {
            let mut done = replaced(&mut text, &self.suffix, space);
            done.append(text);
            text = done;
        }
        give(text, out);
        out.push(Part::End(source));
    }
}

impl Step for WordEnds {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        self.give_waiting(" ", out);
        self.held.append(text);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        self.give_waiting(" ", out);
        let held = self.held.take();
        if held.text().contains(&self.suffix) {
            self.waiting = Some((held, source));
            return;
        }
        give(held, out);
        out.push(Part::End(source));
    }

    fn finish(&mut self, out: &mut Parts) {
        self.give_waiting("", out);
    }
}

/// CTC: of equal tokens in a row only the first counts.
#[derive(Default)]
struct Repeats {
    held: SourcedText,
    last: Option<String>,
}

impl Step for Repeats {
    fn text(&mut self, text: SourcedText, _out: &mut Parts) {
        self.held.append(text);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        let held = self.held.take();
        if self.last.as_deref() == Some(held.text()) {
            return;
        }
        self.last = Some(held.text().to_string());
        give(held, out);
        out.push(Part::End(source));
    }

    fn finish(&mut self, _out: &mut Parts) {
        self.last = None;
    }
}

/// CTC: tokens without text are no tokens.
#[derive(Default)]
struct Empties {
    any: bool,
}

impl Step for Empties {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        self.any = true;
        give(text, out);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        if std::mem::take(&mut self.any) {
            out.push(Part::End(source));
        }
    }

    fn finish(&mut self, _out: &mut Parts) {}
}

/// Bytes on their way to characters: at most a part of one waits.
#[derive(Default)]
struct Characters {
    bytes: Vec<u8>,
    sources: Vec<Source>, // one a byte
}

impl Characters {
    fn push(&mut self, byte: u8, source: Source) {
        self.bytes.push(byte);
        self.sources.push(source);
    }

    /// Takes everything but an incomplete character at the end, which later bytes may complete. What
    /// can no longer become one is U+FFFD, each byte of it or all of it.
    fn take(&mut self, each_byte: bool) -> SourcedText {
        let mut text = SourcedText::default();
        let mut done = 0;
        loop {
            let (valid, invalid) = match std::str::from_utf8(&self.bytes[done..]) {
                Ok(valid) => (valid.len(), None),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.spell(done, valid, &mut text);
            done += valid;
            let Some(invalid) = invalid else { break };
            let invalid = if each_byte { 1 } else { invalid };
            text.push("\u{fffd}", self.sources[done].to(self.sources[done + invalid - 1]));
            done += invalid;
        }
        self.bytes.drain(..done);
        self.sources.drain(..done);
        text
    }

    /// The characters of `count` bytes that are valid.
    fn spell(&self, first: usize, count: usize, text: &mut SourcedText) {
        let Ok(valid) = std::str::from_utf8(&self.bytes[first..first + count]) else { return };
        for (place, character) in valid.char_indices() {
            let place = first + place;
            let last = place + character.len_utf8() - 1;
            let source = self.sources[place].to(self.sources[last]);
            text.push(character.encode_utf8(&mut [0; 4]), source);
        }
    }

    /// An incomplete character at the end of all.
    fn take_rest(&mut self, each_byte: bool) -> SourcedText {
        let mut text = SourcedText::default();
        let sources = std::mem::take(&mut self.sources);
        self.bytes.clear();
        if each_byte {
            sources.iter().for_each(|source| text.push("\u{fffd}", *source));
        } else if let (Some(first), Some(last)) = (sources.first(), sources.last()) {
            text.push("\u{fffd}", first.to(*last));
        }
        text
    }
}

/// ByteLevel: one token of the bytes that the characters of all stand for. A token with a character
/// outside the alphabet (an added one) stands for its own bytes.
struct Bytes {
    alphabet: ByteAlphabet,
    held: SourcedText,
    characters: Characters,
    source: Source,
}

impl Bytes {
    fn new() -> Bytes {
        let (held, characters) = (SourcedText::default(), Characters::default());
        Bytes { alphabet: ByteAlphabet::new(), held, characters, source: Source::default() }
    }
}

impl Step for Bytes {
    fn text(&mut self, text: SourcedText, _out: &mut Parts) {
        self.held.append(text);
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        self.source = self.source.to(source);
        let held = self.held.take();
        let stands_for_bytes = held.text().chars().all(|c| self.alphabet.byte_of(c).is_some());
        for (character, source) in held.characters() {
            match self.alphabet.byte_of(character).filter(|_| stands_for_bytes) {
                Some(byte) => self.characters.push(byte, source),
                None => {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        self.characters.push(byte, source);
                    }
                }
            }
        }
        give(self.characters.take(/*each_byte=*/ false), out);
    }

    fn finish(&mut self, out: &mut Parts) {
        give(self.characters.take_rest(/*each_byte=*/ false), out);
        out.push(Part::End(std::mem::take(&mut self.source)));
    }
}

/// ByteFallback: tokens such as <0xE2> are bytes. A run of them is one token of the characters that
/// they spell, or U+FFFD for each where the run is not UTF-8.
struct ByteTokens {
    runs: ByteRuns,
    held: SourcedText,
    ordinary: bool, // the token, as far as it has come
    run: Characters,
}

impl ByteTokens {
    fn new(runs: ByteRuns) -> ByteTokens {
        let (held, run) = (SourcedText::default(), Characters::default());
        ByteTokens { runs, held, ordinary: false, run }
    }

    fn give_run(&mut self, out: &mut Parts) {
        let Some(source) = self.run.sources.first().copied() else { return };
        if self.runs == ByteRuns::Whole && std::str::from_utf8(&self.run.bytes).is_ok() {
            let source = source.to(*self.run.sources.last().unwrap_or(&source));
            give(self.run.take(/*each_byte=*/ true), out);
            return out.push(Part::End(source));
        }
        self.run.bytes.clear();
        for source in self.run.sources.drain(..) {
            give(SourcedText::of("\u{fffd}", source), out);
            out.push(Part::End(source));
        }
    }

    fn begin_ordinary(&mut self, out: &mut Parts) {
        self.give_run(out);
        self.ordinary = true;
        give(self.held.take(), out);
    }
}

impl Step for ByteTokens {
    fn text(&mut self, text: SourcedText, out: &mut Parts) {
        if self.ordinary {
            return give(text, out);
        }
        self.held.append(text);
        let held = self.held.text();
        let begins = held.starts_with(BYTE_TOKEN) || BYTE_TOKEN.starts_with(held);
        if !begins || held.len() > BYTE_TOKEN_SIZE {
            self.begin_ordinary(out);
        }
    }

    fn end(&mut self, source: Source, out: &mut Parts) {
        if let Some(byte) = byte_of(self.held.text()) {
            self.held.take();
            self.run.push(byte, source);
            if self.runs == ByteRuns::AsTheyCome {
                let text = self.run.take(/*each_byte=*/ true);
                if let Some(source) = text.source() {
                    give(text, out);
                    out.push(Part::End(source));
                }
            }
            return;
        }
        if !self.ordinary {
            self.begin_ordinary(out);
        }
        self.ordinary = false;
        out.push(Part::End(source));
    }

    fn finish(&mut self, out: &mut Parts) {
        self.give_run(out);
    }
}

const BYTE_TOKEN: &str = "<0x";
const BYTE_TOKEN_SIZE: usize = 6;

/// Judged as the library judges it.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix(BYTE_TOKEN)?.strip_suffix('>')?;
    (token.len() == BYTE_TOKEN_SIZE).then(|| u8::from_str_radix(digits, 16).ok())?
}
