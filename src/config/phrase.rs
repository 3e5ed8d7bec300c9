//! What serde and the TOML parser say of a file, in the words of its writer: which key it is, what is wrong with it, and
//! what it takes.
//!
//! They say it in English with the parts in fixed places. What is not known here stays as it is.

use super::{Config, ConfigError};

/// Words that may differ by this much from a known key and still be meant as it.
const NEAR: f64 = 0.6;
/// What serde says of a word that is none of those known.
const UNKNOWN_WORD: &str = "unknown variant ";
/// Keys of which a file has one table for each entry; the others stand in the first.
const TABLES: [&str; 4] = ["overlay", "route", "link", "reserve"];

/// Where something is wrong.
struct Spot<'a> {
    /// The line, up to there.
    before: &'a str,
    /// And from there.
    after: &'a str,
}

/// One sentence from the parser's several lines.
pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let (before, after) = text.split_at_checked(start).unwrap_or((text, ""));
    let spot = Spot {
        before: before.rsplit('\n').next().unwrap_or_default(),
        after: after.lines().next().unwrap_or_default(),
    };
    let said = one_of_words(text, error).unwrap_or_else(|| error.message().lines().collect::<Vec<_>>().join(", "));
    let message = sentence(&spot, &said).unwrap_or_else(|| match text.parse::<toml::Table>() {
        Ok(_) => said,
        Err(_) => format!("this is no TOML: {said}"),
    });
    ConfigError::Toml { line: 1 + before.matches('\n').count(), message }
}

/// Where something else stands than a word, serde does not say which words there are: it is asked with no word.
fn one_of_words(text: &str, error: &toml::de::Error) -> Option<String> {
    let span = error.span().filter(|_| error.message() == "wanted string or table")?;
    let asked = [text.get(..span.start)?, "\"\"", text.get(span.end..)?].concat();
    let answer = toml::from_str::<Config>(&asked).err()?;
    Some(answer.message().to_owned()).filter(|message| message.starts_with(UNKNOWN_WORD))
}

/// What is known of a message.
fn sentence(spot: &Spot<'_>, message: &str) -> Option<String> {
    let key = spot.named();
    let is = |start| message.starts_with(start);
    Some(match () {
        () if is("duplicate key") => format!("{key} is given twice"),
        () if is("string values must be quoted") => {
            format!("{key} has no value that can be read: text stands in quotes, numbers and true or false without")
        }
        () if is("key with no value") => "a line has the form KEY = VALUE".into(),
        () if is("invalid basic string") || is("invalid literal string") => {
            format!("{key} has a text that does not end: a quote is missing, or one too many")
        }
        () if is("invalid socket address") => format!("{key} takes {}", wanted("socket address")),
        () => {
            let known = unknown_key(message).or_else(|| unknown_word(&key, message));
            return known.or_else(|| missing_key(spot, message)).or_else(|| wrong_kind(spot, message));
        }
    })
}

/// "unknown field `a`, expected one of `b`, `c`", with the nearest known key.
fn unknown_key(message: &str) -> Option<String> {
    let quoted = in_backticks(message.strip_prefix("unknown field ")?);
    let (&unknown, known) = quoted.split_first()?;
    if unknown == "key" {
        return Some(
            "keys do not stand in a config: put it into a file of mode 0600 and name that as `key-file`".into(),
        );
    }
    let nearest = known
        .iter()
        .map(|key| (strsim::jaro_winkler(unknown, key), *key))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Some(match nearest {
        Some((_, key)) => format!("unknown key `{unknown}`; did you mean `{key}`?"),
        None => format!("unknown key `{unknown}`; known are {}", known.join(", ")),
    })
}

/// "unknown variant `a`, expected one of `b`, `c`"
fn unknown_word(key: &str, message: &str) -> Option<String> {
    let quoted = in_backticks(message.strip_prefix(UNKNOWN_WORD)?);
    let (unknown, known) = quoted.split_first()?;
    let known = known.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
    let found = if unknown.is_empty() { String::new() } else { format!(", not {unknown:?}") };
    Some(format!("{key} takes {known}{found}"))
}

/// "missing field `a`"
fn missing_key(spot: &Spot<'_>, message: &str) -> Option<String> {
    let missing = in_backticks(message.strip_prefix("missing field ")?).first().copied()?;
    let table = if spot.after.starts_with('[') { spot.after.trim_end() } else { "this table" };
    Some(format!("{table} needs `{missing} = ..`"))
}

/// "invalid type: integer `1`, expected a string"
fn wrong_kind(spot: &Spot<'_>, message: &str) -> Option<String> {
    let (kind, said) = message.split_once(": ")?;
    if !["invalid type", "invalid value"].contains(&kind) {
        return None;
    }
    let (found, expected) = said.split_once(", expected ")?;
    let table = spot.key().filter(|key| expected == "a sequence" && TABLES.contains(key));
    let found = match found {
        "map" if table.is_some() => "one with single ones",
        "map" => "a table",
        "sequence" => "a list",
        // "integer `1`", "string "a"": the kind is plain to see.
        _ => found.find(['`', '"']).map_or(found, |start| &found[start..]).trim_end_matches(" as i128"),
    };
    let tables = |key| format!("tables with double brackets, [[{}]]", path(key));
    let wanted = table.map_or_else(|| wanted(expected), tables);
    Some(format!("{} takes {wanted}, not {found}", spot.named()))
}

/// Of a table.
fn path(key: &str) -> String {
    if key == TABLES[0] { key.to_owned() } else { format!("{}.{key}", TABLES[0]) }
}

/// What serde calls so.
fn wanted(expected: &str) -> String {
    let numbers = |most: u32| format!("a whole number, from 0 to {most} at most");
    match expected {
        "u8" => numbers(u8::MAX.into()),
        "u16" => numbers(u16::MAX.into()),
        "u32" => numbers(u32::MAX),
        "i32" => "a whole number".into(),
        "a boolean" => "true or false".into(),
        "a string" => "text in quotes".into(),
        "path string" => "a path in quotes".into(),
        "socket address" => "an address with its port, like \"0.0.0.0:7777\" or \"[::]:7777\"".into(),
        "a sequence" => "a list in brackets".into(),
        _ => expected.to_owned(),
    }
}

fn in_backticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

impl<'a> Spot<'a> {
    /// The key there, or the one whose value is there, if it stands on the same line.
    fn key(&self) -> Option<&'a str> {
        let is_in_key = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        // Of the pieces between quotes every second one is text.
        let outside = self.before.split('"').step_by(2).collect::<Vec<_>>();
        let key = match outside.iter().rev().find_map(|piece| piece.rsplit_once('=')) {
            Some((key, _)) => key.trim_end().rsplit(|c| !is_in_key(c)).next(),
            None if self.after.starts_with('[') || self.before.trim().is_empty() && self.after.contains('=') => {
                let path = self.after.trim_start_matches('[').split([']', '=']).next().unwrap_or_default();
                path.trim().rsplit('.').next()
            }
            None => None,
        };
        key.filter(|key| !key.is_empty())
    }

    fn named(&self) -> String {
        self.key().map_or_else(|| "this".into(), |key| format!("`{key}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_has_its_key_and_what_that_takes() {
        let cases = [
            ("name = 5", "line 1: `name` takes text in quotes, not `5`"),
            ("lanes = \"many\"", "line 1: `lanes` takes a whole number, from 0 to 255 at most, not \"many\""),
            ("lanes = -1", "line 1: `lanes` takes a whole number, from 0 to 255 at most, not `-1`"),
            ("log-json = \"yes\"", "line 1: `log-json` takes true or false, not \"yes\""),
            ("supernode = \"a=b\"", "line 1: `supernode` takes a list in brackets, not \"a=b\""),
            ("bind = [\n\"a=b\",\n5]", "line 3: this takes text in quotes, not `5`"),
            ("bind = [\"a=b\", 5]", "line 1: `bind` takes text in quotes, not `5`"),
            ("listen = 7777", PORT_TOO),
            (
                "log = \"loud\"",
                "line 1: `log` takes \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\", not \"loud\"",
            ),
            ("relay = true", "line 1: `relay` takes \"off\" or \"site\" or \"on\""),
            ("[[overlay]]\nbridge = \"br0\"", "line 1: [[overlay]] needs `name = ..`"),
            ("[[overlay]]\nname = \"a\"\n[[overlay.link]]\npin = true", "line 3: [[overlay.link]] needs `to = ..`"),
            (
                "[[overlay]]\nname = \"a\"\ndscp = true",
                "line 3: `dscp` takes \"inherit\", or a code point from 0 to 63",
            ),
        ];
        for (text, sentence) in cases {
            assert_eq!(says(text), sentence, "{text}");
        }
    }

    #[test]
    fn a_table_that_may_stand_there_several_times_has_double_brackets() {
        let single = "not one with single ones";
        assert_eq!(
            says("[overlay]\nname = \"a\""),
            format!("line 1: `overlay` takes tables with double brackets, [[overlay]], {single}")
        );
        assert_eq!(
            says("[[overlay]]\nname = \"a\"\n[overlay.route]\nprio = 1"),
            format!("line 3: `route` takes tables with double brackets, [[overlay.route]], {single}")
        );
    }

    #[test]
    fn what_is_no_toml_is_said_in_words_where_they_are_known() {
        let unread = "has no value that can be read: text stands in quotes, numbers and true or false without";
        assert_eq!(says("name = lab"), format!("line 1: `name` {unread}"));
        assert_eq!(says("name: lab"), "line 1: a line has the form KEY = VALUE");
        assert_eq!(says("name = \"a\"\nname = \"b\""), "line 2: `name` is given twice");
        assert!(says("name = \"abc").starts_with("line 1: `name` has a text that does not end"));
        assert_eq!(says("[[overlay]"), "line 1: this is no TOML: unclosed array table, expected `]`");
    }

    const PORT_TOO: &str =
        "line 1: `listen` takes an address with its port, like \"0.0.0.0:7777\" or \"[::]:7777\", not `7777`";

    fn says(text: &str) -> String {
        Config::parse(text).expect_err(text).to_string()
    }
}
