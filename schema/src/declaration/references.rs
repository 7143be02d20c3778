//! Which tables a table refers to by foreign keys, as its `CREATE TABLE` statement says.
//!
//! No parser of SQL: REFERENCES is a reserved word, so outside of strings, comments and quoted names it can only begin
//! a foreign key. The statement comes from SQLite's catalogue and is therefore well formed.

/// The tables that `sql` refers to, each once, in the order of the statement.
pub(super) fn tables(sql: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut after_references = false;
    for token in (Tokens { rest: sql }) {
        match token {
            Token::Word(name) | Token::Quoted(name) if after_references => {
                if !found.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                    found.push(name);
                }
                after_references = false;
            }
            Token::Word(word) => after_references = word.eq_ignore_ascii_case("REFERENCES"),
            Token::Quoted(_) | Token::Other => after_references = false,
        }
    }
    found
}

enum Token {
    /// A bare word.
    Word(String),
    /// A name in any of SQLite's quotes, without them. A string literal may stand for a name, too.
    Quoted(String),
    /// One character of anything else.
    Other,
}

struct Tokens<'a> {
    rest: &'a str,
}

impl Tokens<'_> {
    /// Takes `length` bytes.
    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    /// Takes up to and with `end`, or everything.
    fn skip_past(&mut self, end: &str) {
        self.skip(self.rest.find(end).map_or(self.rest.len(), |at| at + end.len()));
    }

    /// Takes the inside of a quoted name whose opening quote is already taken. A doubled quote stands for itself.
    fn quoted(&mut self, close: char) -> String {
        let mut name = String::new();
        loop {
            let length = self.rest.find(close).unwrap_or(self.rest.len());
            name.push_str(&self.rest[..length]);
            self.skip(length + 1);
            if close == ']' || !self.rest.starts_with(close) {
                return name;
            }
            name.push(close);
            self.skip(1);
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let first = self.rest.chars().next()?;
            if self.rest.starts_with("--") {
                self.skip_past("\n");
            } else if self.rest.starts_with("/*") {
                self.skip(2);
                self.skip_past("*/");
            } else if first.is_ascii_whitespace() {
                self.skip(1);
            } else if is_word(first) {
                let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                let word = self.rest[..length].to_owned();
                self.skip(length);
                return Some(Token::Word(word));
            } else {
                self.skip(first.len_utf8());
                return Some(match first {
                    '"' | '`' | '\'' => Token::Quoted(self.quoted(first)),
                    '[' => Token::Quoted(self.quoted(']')),
                    _ => Token::Other,
                });
            }
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn foreign_keys_are_found_in_every_spelling_and_nowhere_else() {
        for (sql, found) in [
            ("CREATE TABLE a (b REFERENCES c(id), d references C)", vec!["c"]),
            (
                "CREATE TABLE a (b, FOREIGN KEY (b) REFERENCES \"odd \"\" name\" (x) ON DELETE CASCADE)",
                vec!["odd \" name"],
            ),
            ("CREATE TABLE a (b REFERENCES[c d], e REFERENCES `f`)", vec!["c d", "f"]),
            ("CREATE TABLE a (b REFERENCES/* note */  -- more\n größe)", vec!["größe"]),
            ("CREATE TABLE a (b DEFAULT 'REFERENCES c', \"REFERENCES\" d) -- REFERENCES e", vec![]),
            ("CREATE TABLE a (b CHECK (b <> 'it''s REFERENCES c')) /* REFERENCES", vec![]),
            ("CREATE TABLE a (b REFERENCES 'c')", vec!["c"]),
        ] {
            assert_eq!(super::tables(sql), found, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(sql in "(REFERENCES|[\\PC\"'`\\[\\]/*-]|--|/\\*|\\n){0,40}") {
            let found = super::tables(&sql);
            prop_assert!(found.len() <= sql.len());
        }
    }
}
