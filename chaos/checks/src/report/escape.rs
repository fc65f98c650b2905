//! Text of others inside our markup.

use std::fmt;

/// For HTML and SVG, as text or inside a quoted attribute.
pub(super) fn html(text: impl fmt::Display) -> String {
    let mut escaped = String::new();
    for character in text.to_string().chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push('\n'),
            // Not allowed in a page, escaped or not.
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// For one line of Markdown, in a table or not.
pub(super) fn markdown(text: impl fmt::Display) -> String {
    let mut escaped = String::new();
    for character in text.to_string().chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_gets_out() {
        assert_eq!(
            super::html("<b a=\"x'\">&\0"),
            "&lt;b a=&quot;x&#39;&quot;&gt;&amp;\u{fffd}"
        );
        assert_eq!(super::markdown("a|b\n*c*"), "a\\|b \\*c\\*");
    }
}
