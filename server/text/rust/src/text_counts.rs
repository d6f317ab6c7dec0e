//! How much there is of what in a text: words, sentences, letters of a script, small and capital
//! letters.

use unicode_categories::UnicodeCategories;
use unicode_script::{Script, UnicodeScript};
use unicode_segmentation::UnicodeSegmentation;

/// Those that hold a letter or digit, between the boundaries of UAX #29.
pub fn words(text: &str) -> usize {
    text.unicode_words().count()
}

/// The same of sentences.
pub fn sentences(text: &str) -> usize {
    text.unicode_sentences().count()
}

pub fn has_capital(text: &str) -> bool {
    text.chars().any(|c| c.is_uppercase() || c.is_letter_titlecase())
}

pub fn has_small(text: &str) -> bool {
    text.chars().any(|c| c.is_lowercase() || c.is_letter_titlecase())
}

/// A name of ISO 15924 that Unicode gives characters.
pub fn script_of(name: &str) -> Option<Script> {
    let shared = [Script::Common, Script::Inherited, Script::Unknown];
    Script::from_short_name(name).filter(|script| !shared.contains(script))
}

/// Letters of the script, those that it shares with others included, and of any. Letters that all
/// scripts share, such as mathematical ones, are none of either.
pub fn letters_of(text: &str, script: Script) -> (usize, usize) {
    let scripts = text.chars().filter(|c| c.is_alphabetic()).map(|c| c.script_extension());
    let own = scripts.filter(|scripts| !scripts.is_common() && !scripts.is_inherited());
    own.fold((0, 0), |(of_script, of_any), scripts| {
        (of_script + usize::from(scripts.contains_script(script)), of_any + 1)
    })
}
