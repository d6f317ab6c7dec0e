//! The source of a chat template as Jinja2 reads it, made into one that minijinja compiles.

/// With the line ends that Jinja2 makes of all others, and transformers' {% generation %} blocks,
/// which only mark the assistant's text, as scopes.
pub fn prepare(source: &str) -> String {
    without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"))
}

fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((text, tag, after)) = next_tag(rest) {
        out.push_str(text);
        rest = after;
        match block_name(tag) {
            "generation" => out.push_str(&tag.replace("generation", "with")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endwith")),
            "raw" => {
                out.push_str(tag);
                // Jinja2 keeps the line end behind this tag, minijinja drops one.
                if after.starts_with('\n') && !tag.ends_with("-%}") {
                    out.push('\n');
                }
                let (raw, after) = after.split_at(end_of_raw(after));
                out.push_str(raw);
                rest = after;
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    out
}

/// The text before the next tag, expression or comment, that, and what follows it.
fn next_tag(source: &str) -> Option<(&str, &str, &str)> {
    let opens = |at: &usize| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    let start = source.match_indices('{').map(|(at, _)| at).find(opens)?;
    let (text, tag) = source.split_at(start);
    let length = match tag.as_bytes()[1] {
        b'#' => tag.find("#}").map_or(tag.len(), |end| end + 2),
        b'%' => end_of_code(tag, "%}"),
        _ => end_of_code(tag, "}}"),
    };
    let (tag, after) = tag.split_at(length);
    Some((text, tag, after))
}

/// Behind the `end` of a tag or expression, which string literals and brackets within may hide.
fn end_of_code(tag: &str, end: &str) -> usize {
    let bytes = tag.as_bytes();
    let mut open_brackets = 0usize;
    let mut at = 2;
    while at < bytes.len() {
        if open_brackets == 0 && bytes[at..].starts_with(end.as_bytes()) {
            return at + end.len();
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => open_brackets += 1,
            b')' | b']' | b'}' => open_brackets = open_brackets.saturating_sub(1),
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at, quote),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The place of the closing quote.
fn end_of_string(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The words of a {% block %}; empty for expressions and comments.
fn block_name(tag: &str) -> &str {
    let inside = tag.strip_prefix("{%").and_then(|rest| rest.strip_suffix("%}"));
    inside.map_or("", |inside| inside.trim_matches(['-', '+']).trim())
}

fn end_of_raw(source: &str) -> usize {
    let mark = ['-', '+'];
    let ends = |at: &usize| {
        let tag = &source[at + 2..];
        let name = tag.strip_prefix(mark).unwrap_or(tag).trim_start();
        let after = name.strip_prefix("endraw").map(str::trim_start);
        after.is_some_and(|after| after.strip_prefix(mark).unwrap_or(after).starts_with("%}"))
    };
    source.match_indices("{%").map(|(at, _)| at).find(ends).unwrap_or(source.len())
}
