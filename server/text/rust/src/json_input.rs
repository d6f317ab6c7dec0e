//! JSON as Python's json.loads reads it, but for NaN and infinities, keys that come twice and what
//! is too deep: a key's place is the one that the text gives it.

use crate::value::{Dict, Key, Value};

/// json.dumps writes no deeper ones.
const MAX_DEPTH: usize = 100;

pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0);
    reader.skip_space();
    match value {
        Ok(value) if reader.at == text.len() => Ok(value),
        Ok(_) => Err(format!("something follows the value at byte {}", reader.at)),
        Err(reason) => Err(format!("{reason} at byte {}", reader.at)),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn skip(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        self.skip_space();
        for (word, value) in [("null", Value::None), ("true", true.into()), ("false", false.into())]
        {
            if self.skip(word) {
                return Ok(value);
            }
        }
        match self.rest().bytes().next() {
            Some(b'"') => self.string().map(Value::from),
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err("there is no value".to_string()),
        }
    }

    /// Calls `item` between commas until `end`.
    fn listed(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.at += 1;
        self.skip_space();
        if self.skip(end) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.skip_space();
            if self.skip(end) {
                return Ok(());
            }
            if !self.skip(",") {
                return Err(format!("a comma or {end} is missing"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        self.listed("]", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        // Room for more, which nothing is put into, would be most of a short one.
        items.shrink_to_fit();
        Ok(items.into())
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        let mut dict = Dict::default();
        self.listed("}", |reader| {
            reader.skip_space();
            if !reader.rest().starts_with('"') {
                return Err("a key is missing".to_string());
            }
            let key = reader.string()?;
            reader.skip_space();
            if !reader.skip(":") {
                return Err("a colon is missing".to_string());
            }
            if dict.contains_key(key.as_str()) {
                return Err("a key comes twice".to_string());
            }
            dict.insert(Key(key.into()), reader.value(depth + 1)?);
            Ok(())
        })?;
        dict.shrink_to_fit();
        Ok(dict.into())
    }

    fn digits(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let length = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += length;
        if length == 0 {
            Err("a digit is missing".to_string())
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        let _ = self.skip("-");
        if !self.skip("0") {
            self.digits()?;
        }
        let mut whole = true;
        if self.skip(".") {
            whole = false;
            self.digits()?;
        }
        if self.skip("e") || self.skip("E") {
            whole = false;
            let _ = self.skip("+") || self.skip("-");
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if whole {
            return text.parse().map(Value::Int).map_err(|_| "a number is too large".to_string());
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number.into()),
            _ => Err("a number is too large".to_string()),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find(|c: char| c == '"' || c == '\\' || c < ' ');
            let Some(end) = end else { return Err("a string has no end".to_string()) };
            out.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape()?),
                _ => return Err("a string has a control character".to_string()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let letter = self.rest().chars().next().ok_or("a string has no end")?;
        self.at += letter.len_utf8();
        Ok(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) && self.skip("\\u") {
                    units.push(self.unit()?);
                }
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err("an escape is half a character".to_string()),
                }
            }
            _ => return Err("an unknown escape".to_string()),
        })
    }

    fn unit(&mut self) -> Result<u16, String> {
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.at += if unit.is_some() { 4 } else { 0 };
        unit.ok_or_else(|| "an escape has no four digits".to_string())
    }
}
