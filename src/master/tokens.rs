//! kube-apiserver's `--token-auth-file`: lines of `token,user,uid` and, in quotes, `"group,group"`.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail};

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub groups: Vec<String>,
}

pub fn read(path: &Path) -> anyhow::Result<HashMap<String, Holder>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<HashMap<String, Holder>> {
    let mut tokens = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (token, holder) = parse_line(line).with_context(|| format!("line {}", at + 1))?;
        if tokens.insert(token, holder).is_some() {
            bail!("line {}: this token is there twice", at + 1);
        }
    }
    Ok(tokens)
}

fn parse_line(line: &str) -> anyhow::Result<(String, Holder)> {
    let mut fields = line.splitn(4, ',').map(str::trim);
    let token = fields
        .next()
        .filter(|token| !token.is_empty())
        .context("no token")?;
    let name = fields
        .next()
        .filter(|name| !name.is_empty())
        .context("no user name")?;
    fields.next().context("no uid")?;
    let groups = fields
        .next()
        .unwrap_or_default()
        .trim_matches('"')
        .split(',')
        .map(str::trim);
    let groups = groups
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    Ok((
        token.to_owned(),
        Holder {
            name: name.to_owned(),
            groups,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_whom_they_stand_for() {
        let tokens = parse("# comment\nt1,ann,1,\"readers, writers\"\n\nt2,bob,2\n").unwrap();
        let ann = Holder {
            name: "ann".into(),
            groups: vec!["readers".into(), "writers".into()],
        };
        assert_eq!((tokens.len(), &tokens["t1"]), (2, &ann));
        assert!(tokens["t2"].groups.is_empty());
    }

    #[test]
    fn what_is_no_line_of_a_token_file() {
        for (text, why) in [
            ("t1,ann", "line 1: no uid"),
            ("\nt1", "line 2: no user name"),
            (",ann,1", "no token"),
            ("t,a,1\nt,b,2", "line 2: this token is there twice"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
