//! The C interface of the text room (rust_interface.h describes it), and beside it, in jwt.rs, that
//! of the tokens of callers (rpc/jwt_interface.h). Every function catches panics;
//! owned results are freed by the matching function of this library.

mod arrow_interface;
mod arrow_table;
mod budget;
mod decoder_steps;
mod jinja_filters;
mod jinja_globals;
mod jinja_lexer;
mod jinja_loop;
mod jinja_parser;
mod jinja_renderer;
mod jinja_scope;
mod jinja_syntax;
mod json_input;
mod jwt;
mod python_arguments;
mod python_format;
mod python_methods;
mod python_operators;
mod python_strings;
mod python_values;
mod sourced_text;
mod streaming_decoder;
mod template;
mod text_counts;
mod text_per_token;
mod tokenizer;
mod turns;
mod value;
mod word_list;

use std::sync::{Arc, Mutex};

use sourced_text::SourcedText;
use streaming_decoder::StreamingDecoder;
use template::{ChatTemplate, Member, Rendering};
use tokenizer::{DeclaredToken, Existing, Tokenizer};
use turns::Turns;
use word_list::WordList;

/// Encoding takes up to two hundred times the bytes of the text, so longer ones than this wait for
/// each other.
const LONG_TEXT: usize = 64 << 10;
static LONG_ENCODINGS: Turns = Turns::new(4);

#[derive(Clone, Copy, PartialEq)]
#[repr(i32)]
pub enum FailureKind {
    /// The file or the text is not acceptable.
    Refused = 1,
    /// The template's own raise_exception; the text is its message.
    Raised = 2,
    /// The template ran or wrote too long for this input.
    OverBudget = 3,
    /// The template could not be stopped, or took too long for little, and must not be run again.
    Disabled = 4,
    BadArguments = 5,
    /// A panic; the text says where.
    Internal = 6,
}

pub struct Failure {
    pub kind: FailureKind,
    pub text: String,
}

impl Failure {
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into() }
    }
}

/// Bytes of the caller, valid during the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct VsBytes {
    data: *const u8,
    size: usize,
}

/// A string or bytes, owned by this library until vs_string_free.
#[repr(C)]
pub struct VsString {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

/// Token ids owned by this library until vs_ids_free.
#[repr(C)]
pub struct VsIds {
    data: *mut u32,
    size: usize,
    capacity: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct VsPair {
    first: VsBytes,
    second: VsBytes,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct VsDeclaredToken {
    text: VsBytes,
    id: i64,      // below 0: none
    existing: u8, // 0 kept, 1 replaced, 2 made special
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct VsMember {
    name: VsBytes,
    value: VsBytes,
    is_json: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct VsMessage {
    members: *const VsMember,
    num_members: usize,
}

#[repr(C)]
pub struct VsRendering {
    messages: *const VsMessage,
    num_messages: usize,
    special_tokens: *const VsPair, // (variable, text)
    num_special_tokens: usize,
    arguments: VsBytes, // a JSON object, or empty
    add_generation_prompt: bool,
    now_seconds: i64,
}

pub struct VsTokenizer(Arc<Tokenizer>);
pub struct VsStreamingDecoder(Mutex<StreamingDecoder>);
pub struct VsTemplate(ChatTemplate);
pub struct VsWordList(WordList);

impl VsBytes {
    /// SAFETY: `data` holds `size` bytes, or `size` is 0.
    unsafe fn slice<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.size)
    }

    /// SAFETY: as `slice`.
    unsafe fn text<'a>(self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.slice())
            .map_err(|_| Failure::new(FailureKind::Refused, "is not valid UTF-8"))
    }
}

impl From<String> for VsString {
    fn from(text: String) -> VsString {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for VsString {
    fn from(bytes: Vec<u8>) -> VsString {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        VsString { data: bytes.as_mut_ptr(), size: bytes.len(), capacity: bytes.capacity() }
    }
}

impl From<Vec<u32>> for VsIds {
    fn from(ids: Vec<u32>) -> VsIds {
        let mut ids = std::mem::ManuallyDrop::new(ids);
        VsIds { data: ids.as_mut_ptr(), size: ids.len(), capacity: ids.capacity() }
    }
}

/// SAFETY: `first` begins `count` items, or there are none.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    std::slice::from_raw_parts(first, count)
}

/// SAFETY: the message's members and their bytes are valid.
unsafe fn message_of(message: VsMessage) -> Result<Vec<Member>, Failure> {
    let members = array(message.members, message.num_members).iter().map(|member| {
        let (name, value) = (member.name.text()?.to_string(), member.value.text()?.to_string());
        Ok(Member { name, value, is_json: member.is_json })
    });
    members.collect()
}

/// SAFETY: `pairs` holds `count` pairs whose bytes are valid.
unsafe fn text_pairs(pairs: *const VsPair, count: usize) -> Result<Vec<(String, String)>, Failure> {
    let texts = array(pairs, count)
        .iter()
        .map(|pair| Ok((pair.first.text()?.to_string(), pair.second.text()?.to_string())));
    texts.collect()
}

/// SAFETY: `tokens` holds `count` tokens whose bytes are valid.
unsafe fn declared_tokens(
    tokens: *const VsDeclaredToken,
    count: usize,
) -> Result<Vec<DeclaredToken>, Failure> {
    let tokens = if count == 0 { &[] } else { std::slice::from_raw_parts(tokens, count) };
    let tokens = tokens.iter().map(|token| {
        Ok(DeclaredToken {
            token: tokenizers::AddedToken {
                content: token.text.text()?.to_string(),
                single_word: token.single_word,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
                normalized: token.normalized,
                special: token.special,
            },
            id: u32::try_from(token.id).ok(),
            existing: match token.existing {
                0 => Existing::Kept,
                1 => Existing::Replaced,
                _ => Existing::MadeSpecial,
            },
        })
    });
    tokens.collect()
}

/// Runs `work`; 0 on success, otherwise a FailureKind with its text in `error`.
/// SAFETY: `error` is writable.
unsafe fn border(error: *mut VsString, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match budget::catch_panic(work).unwrap_or_else(Err) {
        Ok(()) => 0,
        Err(failure) => {
            error.write(failure.text.into());
            failure.kind as i32
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn vs_string_free(text: VsString) {
    if !text.data.is_null() {
        drop(Vec::from_raw_parts(text.data, text.size, text.capacity));
    }
}

#[no_mangle]
pub unsafe extern "C" fn vs_ids_free(ids: VsIds) {
    if !ids.data.is_null() {
        drop(Vec::from_raw_parts(ids.data, ids.size, ids.capacity));
    }
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_load(
    file: VsBytes,
    declared: *const VsDeclaredToken,
    num_declared: usize,
    split_special_tokens: bool,
    result: *mut *mut VsTokenizer,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let declared = declared_tokens(declared, num_declared)?;
        let tokenizer = Tokenizer::load(file.slice(), declared, split_special_tokens)?;
        result.write(Box::into_raw(Box::new(VsTokenizer(Arc::new(tokenizer)))));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_is_bpe(tokenizer: *const VsTokenizer) -> bool {
    (*tokenizer).0.is_bpe()
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_clean_up(tokenizer: *mut VsTokenizer) {
    // Nobody shares it yet.
    if let Some(tokenizer) = Arc::get_mut(&mut (*tokenizer).0) {
        tokenizer.clean_up();
    }
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_free(tokenizer: *mut VsTokenizer) {
    drop(Box::from_raw(tokenizer));
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_id_limit(tokenizer: *const VsTokenizer) -> u32 {
    (*tokenizer).0.id_limit()
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_fewest_tokens(
    tokenizer: *const VsTokenizer,
    text: VsBytes,
) -> usize {
    (*tokenizer).0.fewest_tokens(text.slice())
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_num_added(tokenizer: *const VsTokenizer) -> usize {
    (*tokenizer).0.added().len()
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_added(
    tokenizer: *const VsTokenizer,
    index: usize,
    id: *mut u32,
    special: *mut bool,
    text: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let added = &(&(*tokenizer).0.added())[index];
        id.write(added.id);
        special.write(added.special);
        text.write(added.text.clone().into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_encode(
    tokenizer: *const VsTokenizer,
    text: VsBytes,
    add_special_tokens: bool,
    ids: *mut VsIds,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let text = text.text()?;
        let _turn = (text.len() > LONG_TEXT).then(|| LONG_ENCODINGS.take());
        ids.write((*tokenizer).0.encode(text, add_special_tokens)?.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_decode(
    tokenizer: *const VsTokenizer,
    ids: *const u32,
    num_ids: usize,
    skip_special_tokens: bool,
    text: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let ids = if num_ids == 0 { &[] } else { std::slice::from_raw_parts(ids, num_ids) };
        text.write((*tokenizer).0.decode(ids, skip_special_tokens)?.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_tokenizer_piece(
    tokenizer: *const VsTokenizer,
    id: u32,
    piece: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let found = (*tokenizer).0.piece(id);
        let found = found.ok_or_else(|| Failure::new(FailureKind::Refused, "no such token"))?;
        piece.write(found.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_streaming_decoder_new(
    tokenizer: *const VsTokenizer,
    skip_special_tokens: bool,
    for_stop_strings: bool,
    result: *mut *mut VsStreamingDecoder,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let tokenizer = (*tokenizer).0.clone();
        let decoder = match for_stop_strings {
            true => StreamingDecoder::for_stop_strings(tokenizer),
            false => StreamingDecoder::new(tokenizer, skip_special_tokens),
        };
        result.write(Box::into_raw(Box::new(VsStreamingDecoder(Mutex::new(decoder)))));
        Ok(())
    })
}

/// SAFETY: `text` and `stretches` are writable.
unsafe fn write_sourced(sourced: SourcedText, text: *mut VsString, stretches: *mut VsIds) {
    let numbers = sourced
        .stretches()
        .iter()
        .flat_map(|(size, source)| [*size as u32, source.first, source.last]);
    stretches.write(numbers.collect::<Vec<u32>>().into());
    text.write(sourced.into_text().into());
}

#[no_mangle]
pub unsafe extern "C" fn vs_streaming_decoder_free(decoder: *mut VsStreamingDecoder) {
    drop(Box::from_raw(decoder));
}

#[no_mangle]
pub unsafe extern "C" fn vs_streaming_decoder_push(
    decoder: *const VsStreamingDecoder,
    id: u32,
    text: *mut VsString,
    stretches: *mut VsIds,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        write_sourced((*decoder).0.lock().unwrap().push(id), text, stretches);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_streaming_decoder_flush(
    decoder: *const VsStreamingDecoder,
    text: *mut VsString,
    stretches: *mut VsIds,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        write_sourced((*decoder).0.lock().unwrap().flush(), text, stretches);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_template_compile(
    source: VsBytes,
    max_output_bytes: usize,
    result: *mut *mut VsTemplate,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let template = ChatTemplate::compile(source.text()?, max_output_bytes)?;
        result.write(Box::into_raw(Box::new(VsTemplate(template))));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_template_free(template: *mut VsTemplate) {
    drop(Box::from_raw(template));
}

#[no_mangle]
pub unsafe extern "C" fn vs_template_render(
    template: *const VsTemplate,
    rendering: *const VsRendering,
    text: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let rendering = &*rendering;
        let messages = array(rendering.messages, rendering.num_messages).iter();
        let messages = messages.map(|message| message_of(*message)).collect::<Result<_, _>>()?;
        let special_tokens = text_pairs(rendering.special_tokens, rendering.num_special_tokens)?;
        let arguments = match rendering.arguments.size {
            0 => None,
            _ => Some(rendering.arguments.text()?.to_string()),
        };
        let rendered = (*template).0.render(Rendering {
            messages,
            arguments,
            special_tokens,
            add_generation_prompt: rendering.add_generation_prompt,
            now_seconds: rendering.now_seconds,
        })?;
        text.write(rendered.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_word_list_new(
    entries: *const VsBytes,
    num_entries: usize,
    result: *mut *mut VsWordList,
    bad_entry: *mut usize,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let entries = array(entries, num_entries).iter();
        let entries = entries.map(|entry| entry.text()).collect::<Result<Vec<_>, _>>()?;
        let list = WordList::new(&entries).map_err(|place| {
            bad_entry.write(place);
            Failure::new(FailureKind::Refused, "has nothing to look for")
        })?;
        result.write(Box::into_raw(Box::new(VsWordList(list))));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_word_list_free(list: *mut VsWordList) {
    drop(Box::from_raw(list));
}

#[no_mangle]
pub unsafe extern "C" fn vs_word_list_occurs_in(
    list: *const VsWordList,
    text: VsBytes,
    occurs: *mut bool,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        occurs.write((*list).0.occurs_in(text.text()?));
        Ok(())
    })
}

#[repr(C)]
pub struct VsTextCounts {
    words: usize,
    sentences: usize,
    has_capital: bool,
    has_small: bool,
}

#[no_mangle]
pub unsafe extern "C" fn vs_text_counts(
    text: VsBytes,
    counts: *mut VsTextCounts,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let text = text.text()?;
        counts.write(VsTextCounts {
            words: text_counts::words(text),
            sentences: text_counts::sentences(text),
            has_capital: text_counts::has_capital(text),
            has_small: text_counts::has_small(text),
        });
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_is_script(name: VsBytes, is: *mut bool, error: *mut VsString) -> i32 {
    border(error, || {
        is.write(text_counts::script_of(name.text()?).is_some());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_letters_of_script(
    text: VsBytes,
    script: VsBytes,
    of_script: *mut usize,
    of_any: *mut usize,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let script = text_counts::script_of(script.text()?)
            .ok_or_else(|| Failure::new(FailureKind::BadArguments, "no script"))?;
        let (own, all) = text_counts::letters_of(text.text()?, script);
        of_script.write(own);
        of_any.write(all);
        Ok(())
    })
}
