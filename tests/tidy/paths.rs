//! What a source file names: every path with `::`, every macro, every attribute that the rules speak of.
//!
//! The file is read as tokens, so comments and strings name nothing, and a path inside a macro counts. Types
//! aren't resolved: a path that comes in through an alias of an alias is not seen for what it is.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Something that a rule may speak of, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mention {
    /// Counted from 1.
    pub(crate) line: usize,
    /// Inside `#[cfg(test)]`.
    pub(crate) in_test: bool,
    /// Modules opened in this file around it.
    pub(crate) nested: Vec<String>,
    /// What it is.
    pub(crate) what: What,
}

/// See [`Mention`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// `a::b::c`, or one branch of a `use`; `*` for a glob.
    Path(Vec<String>),
    /// `name!`
    Macro(String),
    /// `#[ignore]` without a reason.
    IgnoreWithoutReason,
    /// `#[cfg(test)] mod name;`
    TestFile(String),
}

/// All that a file mentions, or why it can't be read.
pub(crate) fn mentions(source: &str) -> Result<Vec<Mention>, String> {
    let tokens = TokenStream::from_str(source).map_err(|error| error.to_string())?;
    let mut reader = Reader { found: Vec::new(), nested: Vec::new() };
    reader.read(&tokens.into_iter().collect::<Vec<_>>(), false);
    Ok(reader.found)
}

struct Reader {
    found: Vec<Mention>,
    nested: Vec<String>,
}

impl Reader {
    fn mention(&mut self, line: usize, in_test: bool, what: What) {
        self.found.push(Mention { line, in_test, nested: self.nested.clone(), what });
    }

    fn read(&mut self, tokens: &[TokenTree], in_test: bool) {
        let mut at = 0;
        // An attribute `#[cfg(test)]` was read, and the item it stands on has not ended.
        let mut test_item = false;
        while at < tokens.len() {
            let in_test = in_test || test_item;
            let line = tokens[at].span().start().line;
            match &tokens[at] {
                TokenTree::Ident(word) if word == "use" => {
                    at += self.read_use(&tokens[at + 1..], &[], in_test);
                }
                TokenTree::Ident(word) if word == "mod" => {
                    if let Some(opened) = self.read_module(&tokens[at..], in_test) {
                        at += opened;
                        test_item = false;
                    }
                }
                TokenTree::Ident(_) => {
                    let (path, length) = path_at(&tokens[at..]);
                    if path.len() > 1 {
                        self.mention(line, in_test, What::Path(path));
                    } else if is_punct(tokens.get(at + length), '!')
                        && !is_punct(tokens.get(at + length + 1), '=')
                    {
                        self.mention(line, in_test, What::Macro(path[0].clone()));
                    }
                    at += length - 1;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => test_item = false,
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let text = attribute(tokens.get(at + 1));
                    test_item |= text.as_deref() == Some("cfg(test)");
                    if text.as_deref() == Some("ignore") {
                        self.mention(line, in_test, What::IgnoreWithoutReason);
                    }
                }
                TokenTree::Group(group) => {
                    self.read(&group.stream().into_iter().collect::<Vec<_>>(), in_test);
                    test_item &= group.delimiter() != Delimiter::Brace;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// `mod name { .. }` or `mod name;`: how many tokens to skip, if it is one of these.
    fn read_module(&mut self, tokens: &[TokenTree], in_test: bool) -> Option<usize> {
        let TokenTree::Ident(name) = tokens.get(1)? else { return None };
        match tokens.get(2)? {
            TokenTree::Group(body) => {
                self.nested.push(name.to_string());
                self.read(&body.stream().into_iter().collect::<Vec<_>>(), in_test);
                self.nested.pop();
            }
            _ if in_test => {
                let line = name.span().start().line;
                self.mention(line, in_test, What::TestFile(name.to_string()));
            }
            _ => {}
        }
        Some(2)
    }

    /// One branch of a `use`, up to its `,` or `;`. Returns how many tokens it took.
    fn read_use(&mut self, tokens: &[TokenTree], prefix: &[String], in_test: bool) -> usize {
        let mut path = prefix.to_vec();
        let mut at = 0;
        let mut renamed = false;
        let line = tokens.first().map_or(0, |token| token.span().start().line);
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if matches!(punct.as_char(), ',' | ';') => break,
                TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Ident(word) if word == "as" => renamed = true,
                TokenTree::Ident(word) if !renamed => path.push(word.to_string()),
                TokenTree::Group(branches) => {
                    self.read_branches(&branches.stream().into_iter().collect::<Vec<_>>(), &path, in_test);
                    return at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.mention(line, in_test, What::Path(path));
        at
    }

    fn read_branches(&mut self, tokens: &[TokenTree], prefix: &[String], in_test: bool) {
        let mut at = 0;
        while at < tokens.len() {
            at += self.read_use(&tokens[at..], prefix, in_test) + 1;
        }
    }
}

/// The path that starts here, and how many tokens it has. At least the first word.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = vec![tokens[0].to_string()];
    let mut length = 1;
    while is_punct(tokens.get(length), ':') && is_punct(tokens.get(length + 1), ':') {
        let Some(TokenTree::Ident(word)) = tokens.get(length + 2) else { break };
        path.push(word.to_string());
        length += 3;
    }
    (path, length)
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// The text of an attribute, without spaces.
fn attribute(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
            Some(group.stream().to_string().split_whitespace().collect())
        }
        _ => None,
    }
}
