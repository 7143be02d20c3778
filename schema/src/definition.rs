//! The text of CREATE statements, as far as it has to be read: SQLite describes the rest itself.

/// What stands between the commas of the first list of a CREATE statement, and what follows the list.
pub fn split_list(sql: &str) -> (Vec<String>, &str) {
    let Some(open) = list_start(sql) else { return (Vec::new(), "") };
    let mut rest = "";
    let (mut terms, mut term, mut depth) = (Vec::new(), String::new(), 0_usize);
    let mut quote: Option<char> = None;
    for (at, character) in sql[open + 1..].char_indices() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(character),
            (None, '[') => quote = Some(']'),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => {
                rest = &sql[open + 1 + at + 1..];
                break;
            }
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                terms.push(std::mem::take(&mut term));
                continue;
            }
            (None, _) => {}
        }
        term.push(character);
    }
    terms.push(term);
    (terms, rest)
}

/// Where the list opens: the first parenthesis outside quotes.
fn list_start(sql: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    for (at, character) in sql.char_indices() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (None, '\'' | '"' | '`') => quote = Some(character),
            (None, '[') => quote = Some(']'),
            (None, '(') => return Some(at),
            _ => {}
        }
    }
    None
}

/// The text that defines a column in a `CREATE TABLE` statement; all of the statement where it is not found.
pub fn of_column<'s>(elements: &'s [String], column: &str, sql: &'s str) -> &'s str {
    let defines = |element: &&String| {
        let text = element.trim_start();
        let rest = match text.chars().next() {
            Some('"' | '`' | '[') => text.get(1..).and_then(|text| text.strip_prefix(&*column.replace('"', "\"\""))),
            _ => text
                .get(..column.len())
                .filter(|start| start.eq_ignore_ascii_case(column))
                .map(|_| &text[column.len()..]),
        };
        rest.is_some_and(|rest| !rest.starts_with(is_part_of_a_name))
    };
    elements.iter().find(defines).map_or(sql, String::as_str)
}

/// Whether a text names a column, as far as can be told without parsing it: never where it does not.
pub fn names(text: &str, column: &str) -> bool {
    let (text, column) = (text.to_lowercase(), column.to_lowercase().replace('"', "\"\""));
    text.match_indices(&column).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + column.len()..]);
        !before.ends_with(is_part_of_a_name) && !behind.starts_with(is_part_of_a_name)
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
        let sql =
            r#"CREATE TABLE "t(" (id INTEGER, "a,b" TEXT AS (f(id, ')')), idea AS (1), UNIQUE (id), late AS (id))"#;
        let (elements, rest) = split_list(sql);
        assert_eq!((elements.len(), rest), (5, ""));
        let of = |name| of_column(&elements, name, sql).trim();
        assert_eq!(of("a,b"), r#""a,b" TEXT AS (f(id, ')'))"#);
        assert_eq!((of("ID"), of("idea"), of("late")), ("id INTEGER", "idea AS (1)", "late AS (id)"));
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
