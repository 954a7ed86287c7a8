//! The fenced blocks of a page.

use acequia_tests::workspace;

/// A fenced block.
pub struct Block {
    /// `README.md:17`, for messages.
    pub place: String,
    /// The heading that it stands under.
    pub heading: String,
    /// The first word of its first line.
    pub language: String,
    /// The other words.
    pub flags: Vec<String>,
    /// What is in it, with a line break at the end.
    pub text: String,
}

impl Block {
    /// Whether that word is there.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }

    /// What is behind `KEY=`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.flags.iter().find_map(|flag| flag.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(workspace().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    let mut heading = String::new();
    for (index, line) in text.lines().enumerate() {
        let place = format!("{page}:{}", index + 1);
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => found.extend(open.take()),
            (Some(block), _) => block.text.push_str(&format!("{line}\n")),
            (None, Some(info)) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_else(|| panic!("{place}: the block does not say what it is"));
                let heading = heading.clone();
                open = Some(Block { place, heading, language, flags: words.collect(), text: String::new() });
            }
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block has no end");
    found
}

#[test]
fn blocks_are_found() {
    let all = blocks("README.md");
    assert!(all.iter().any(|block| block.language == "sh" && block.has("background")));
    assert!(all.iter().any(|block| block.value("file") == Some("../above/src/lib.rs")));
    assert!(all.iter().all(|block| block.text.ends_with('\n')));
}
