//! The text of CREATE statements, as far as it has to be read: SQLite describes the rest itself.

/// What stands between the commas of the first list of a CREATE statement, with spaces for comments, and what follows the list.
pub fn split_list(sql: &str) -> (Vec<String>, String) {
    let (mut terms, mut term, mut depth) = (Vec::new(), String::new(), 0_usize);
    for (at, part) in parts(sql) {
        match part {
            Part::Plain('(') => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            Part::Plain(')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    terms.push(term);
                    return (terms, parts(&sql[at + 1..]).map(|(_, part)| part.text()).collect());
                }
            }
            Part::Plain(',') if depth == 1 => {
                terms.push(std::mem::take(&mut term));
                continue;
            }
            Part::Plain(_) | Part::Quoted(_) | Part::Comment => {}
        }
        if depth > 0 {
            term.push(part.text());
        }
    }
    (terms, String::new())
}

/// A character of SQL, by where it stands.
#[derive(Clone, Copy, Debug)]
enum Part {
    Plain(char),
    /// In quotes, or one of them.
    Quoted(char),
    Comment,
}

impl Part {
    /// The character without comments.
    fn text(self) -> char {
        match self {
            Self::Plain(character) | Self::Quoted(character) => character,
            Self::Comment => ' ',
        }
    }
}

/// The characters of a statement, each with its place.
fn parts(sql: &str) -> impl Iterator<Item = (usize, Part)> {
    #[derive(Clone, Copy)]
    enum Within {
        Nothing,
        Quotes(char),
        Line,
        Block(usize),
    }
    let mut within = Within::Nothing;
    sql.char_indices().map(move |(at, character)| {
        let rest = &sql[at..];
        let (part, next) = match within {
            Within::Quotes(end) if character == end => (Part::Quoted(character), Within::Nothing),
            Within::Quotes(_) => (Part::Quoted(character), within),
            Within::Line if character == '\n' => (Part::Plain(character), Within::Nothing),
            Within::Line => (Part::Comment, within),
            // The opening of a comment does not close it.
            Within::Block(from) if character == '/' && from + 2 < at && sql[..at].ends_with('*') => {
                (Part::Comment, Within::Nothing)
            }
            Within::Block(_) => (Part::Comment, within),
            Within::Nothing if rest.starts_with("--") => (Part::Comment, Within::Line),
            Within::Nothing if rest.starts_with("/*") => (Part::Comment, Within::Block(at)),
            Within::Nothing => match character {
                '\'' | '"' | '`' => (Part::Quoted(character), Within::Quotes(character)),
                '[' => (Part::Quoted(character), Within::Quotes(']')),
                _ => (Part::Plain(character), Within::Nothing),
            },
        };
        within = next;
        (at, part)
    })
}

/// The text that defines a column in a `CREATE TABLE` statement; all of the statement where it is not found.
pub fn of_column<'s>(elements: &'s [String], column: &str, sql: &'s str) -> &'s str {
    let quoted = [
        format!("\"{}\"", column.replace('"', "\"\"")),
        format!("`{}`", column.replace('`', "``")),
        format!("[{column}]"),
        format!("'{}'", column.replace('\'', "''")),
    ];
    let is_bare = column.chars().all(is_part_of_a_name);
    let defines = |element: &&String| {
        let text = element.trim_start();
        let begins = |name: &str| {
            let (start, rest) = text.split_at_checked(name.len())?;
            start.eq_ignore_ascii_case(name).then_some(rest)
        };
        let bare = begins(column).filter(|rest| is_bare && !rest.starts_with(is_part_of_a_name));
        bare.is_some() || quoted.iter().any(|name| begins(name).is_some())
    };
    elements.iter().find(defines).map_or(sql, String::as_str)
}

/// Whether a text may name a column: some do not that are taken to, such as a literal with its name in it.
pub fn names(text: &str, column: &str) -> bool {
    let (text, column) = (text.to_lowercase(), column.to_lowercase());
    let spelled = [column.replace('"', "\"\""), column.replace('`', "``"), column];
    spelled.iter().any(|name| {
        text.match_indices(name.as_str()).any(|(at, _)| {
            let (before, behind) = (&text[..at], &text[at + name.len()..]);
            !before.ends_with(is_part_of_a_name) && !behind.starts_with(is_part_of_a_name)
        })
    })
}

fn is_part_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_by_its_name() {
        let sql = r#"CREATE TABLE "t(" -- (
            (id INTEGER, /* the user's, */ "a,b" TEXT AS (f(id, ')')), -- it's "late", (
            idea AS (1), "total price" INT, /*/ total, /**/ UNIQUE (id), late/**/AS (id), total AS (id)) STRICT -- c"#;
        let (elements, rest) = split_list(sql);
        assert_eq!((elements.len(), rest.trim_end()), (7, " STRICT"));
        let of = |name| of_column(&elements, name, sql).trim();
        assert_eq!(of("a,b"), r#""a,b" TEXT AS (f(id, ')'))"#);
        assert_eq!((of("ID"), of("idea"), of("late")), ("id INTEGER", "idea AS (1)", "late    AS (id)"));
        assert_eq!((of("total"), of("total price")), ("total AS (id)", r#""total price" INT"#));
        assert_eq!(of("none"), sql);
    }

    #[test]
    fn a_name_is_a_whole_word() {
        assert!(
            names(r#"lower("E")"#, "e") && names("a+b", "b") && names("x.[a b]", "a b") && names(r#""q""q""#, "q\"q")
        );
        assert!(!names("lower(email)", "e") && !names("é", "e") && !names("a_b", "b"));
    }
}
