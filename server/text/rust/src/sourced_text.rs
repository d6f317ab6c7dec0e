//! Text that knows which token ids it comes from, so that whoever cuts it can cut its tokens.

/// A stretch of text and the ids that it comes from: a character of several tokens from all of them.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Source {
    pub first: u32, // counted from the first id of all
    pub last: u32,
}

impl Source {
    pub fn to(self, last: Source) -> Source {
        Source { first: self.first, last: last.last }
    }

    pub fn begin(self) -> Source {
        Source { first: self.first, last: self.first }
    }
}

#[derive(Clone, Default)]
pub struct SourcedText {
    text: String,
    /// Bytes of stretches one behind the other.
    stretches: Vec<(usize, Source)>,
}

/// A text that is taken apart from its front: in time of its size, into however many pieces.
pub struct Pieces {
    text: String,
    at: usize,
    stretches: std::vec::IntoIter<(usize, Source)>,
    open: Option<(usize, Source)>, // what is left of the stretch that was cut last
}

impl Pieces {
    /// The next `size` bytes, which end with a character.
    pub fn next(&mut self, size: usize) -> SourcedText {
        let text = self.text[self.at..self.at + size].to_string();
        self.at += size;
        let mut stretches = Vec::new();
        let mut left = size;
        while left > 0 {
            let next = self.open.take().or_else(|| self.stretches.next());
            let Some((bytes, source)) = next else { break };
            let taken = left.min(bytes);
            stretches.push((taken, source));
            left -= taken;
            self.open = (taken < bytes).then_some((bytes - taken, source));
        }
        SourcedText { text, stretches }
    }

    pub fn rest(mut self) -> SourcedText {
        self.next(self.text.len() - self.at)
    }
}

impl SourcedText {
    pub fn of(text: &str, source: Source) -> SourcedText {
        let mut result = SourcedText::default();
        result.push(text, source);
        result
    }

    pub fn push(&mut self, text: &str, source: Source) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        match self.stretches.last_mut() {
            // Tokens of their own stay apart: those of one character are not split.
            Some((size, last)) if *last == source && source.first == source.last => {
                *size += text.len()
            }
            _ => self.stretches.push((text.len(), source)),
        }
    }

    pub fn append(&mut self, other: SourcedText) {
        if self.text.is_empty() {
            *self = other;
            return;
        }
        let mut first = 0;
        for (size, source) in other.stretches {
            self.push(&other.text[first..first + size], source);
            first += size;
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn stretches(&self) -> &[(usize, Source)] {
        &self.stretches
    }

    pub fn characters(&self) -> impl Iterator<Item = (char, Source)> + '_ {
        let mut stretches = self.stretches.iter();
        let (mut end, mut source) = (0, Source::default());
        self.text.char_indices().map(move |(place, character)| {
            while place >= end {
                let Some((size, next)) = stretches.next() else { break };
                (end, source) = (end + size, *next);
            }
            (character, source)
        })
    }

    pub fn into_text(self) -> String {
        self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn take(&mut self) -> SourcedText {
        std::mem::take(self)
    }

    pub fn pieces(self) -> Pieces {
        let (text, stretches) = (self.text, self.stretches.into_iter());
        Pieces { text, at: 0, stretches, open: None }
    }

    /// Where the text as a whole comes from; None where there is none.
    pub fn source(&self) -> Option<Source> {
        let (_, first) = self.stretches.first()?;
        let (_, last) = self.stretches.last()?;
        Some(first.to(*last))
    }

    /// Takes the first `size` bytes, which end with a character.
    pub fn split_off_front(&mut self, size: usize) -> SourcedText {
        if size == self.text.len() {
            return self.take();
        }
        let rest = self.text.split_off(size);
        let mut front =
            SourcedText { text: std::mem::replace(&mut self.text, rest), stretches: Vec::new() };
        let mut left = size;
        let mut whole = 0;
        for (bytes, source) in &mut self.stretches {
            if left == 0 {
                break;
            }
            let taken = left.min(*bytes);
            front.stretches.push((taken, *source));
            left -= taken;
            *bytes -= taken;
            whole += usize::from(*bytes == 0);
        }
        self.stretches.drain(..whole);
        front
    }
}
