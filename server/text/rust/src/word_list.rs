//! Whether a text has one of some words or phrases in it, whole and without regard to case.
//!
//! Texts are compared in composed form (NFC), each character in the lower case of its upper case, white
//! space as one space. A place between two characters ends a word where not both are letters, digits
//! or marks, or where Unicode's word boundaries (UAX #29) have one: between the characters of scripts
//! that are written without spaces.

use std::collections::HashSet;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// A word or phrase as it is looked for.
struct Entry {
    folded: String,
    /// Every word that begins so.
    is_prefix: bool,
}

pub struct WordList(Vec<Entry>);

fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let composed = word.nfc().map(|(c, _)| c);
        out.extend(composed.flat_map(char::to_uppercase).flat_map(char::to_lowercase));
    }
    out
}

fn continues_word(c: char) -> bool {
    c.is_alphanumeric() || c.is_mark()
}

/// Where words begin and end in a text.
struct Boundaries<'a> {
    text: &'a str,
    of_unicode: HashSet<usize>,
}

impl Boundaries<'_> {
    fn of(text: &str) -> Boundaries<'_> {
        let of_unicode = text.split_word_bound_indices().map(|(place, _)| place).collect();
        Boundaries { text, of_unicode }
    }

    fn has(&self, place: usize) -> bool {
        let before = self.text[..place].chars().next_back();
        let after = self.text[place..].chars().next();
        let within = |c: Option<char>| c.is_some_and(continues_word);
        !(within(before) && within(after)) || self.of_unicode.contains(&place)
    }
}

impl Entry {
    fn is_at(&self, place: usize, boundaries: &Boundaries) -> bool {
        boundaries.has(place) && (self.is_prefix || boundaries.has(place + self.folded.len()))
    }

    fn occurs_in(&self, boundaries: &Boundaries) -> bool {
        let mut from = 0;
        while let Some(place) = boundaries.text[from..].find(&self.folded) {
            if self.is_at(from + place, boundaries) {
                return true;
            }
            // The next occurrence may begin within this one.
            from += place + self.folded.chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

impl WordList {
    /// Nothing where an entry has no character to look for; its place.
    pub fn new(entries: &[&str]) -> Result<WordList, usize> {
        let entry = |(place, text): (usize, &&str)| {
            let is_prefix = text.ends_with('*');
            let folded = folded(text.strip_suffix('*').unwrap_or(text));
            if folded.is_empty() {
                return Err(place);
            }
            Ok(Entry { folded, is_prefix })
        };
        entries.iter().enumerate().map(entry).collect::<Result<_, _>>().map(WordList)
    }

    pub fn occurs_in(&self, text: &str) -> bool {
        let folded = folded(text);
        let boundaries = Boundaries::of(&folded);
        self.0.iter().any(|entry| entry.occurs_in(&boundaries))
    }
}
