//! Quoting of SQL names: the only place that turns a name into SQL text.
//!
//! A name reaches this module only after it was looked up in the declared schema or in SQLite's own catalogue.

/// `name` as a double-quoted SQL identifier.
///
/// ```
/// assert_eq!(rowcast_schema::identifier::quoted(r#"od"d"#), r#""od""d""#);
/// ```
pub fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for character in name.chars() {
        if character == '"' {
            text.push('"');
        }
        text.push(character);
    }
    text.push('"');
    text
}

/// The names, quoted and joined with `, `.
pub fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// `text` as a single-quoted SQL string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
