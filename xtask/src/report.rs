//! Generated sections in hand-written Markdown pages, between two marker comments.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const BEGIN: &str = "<!-- generated: begin -->";
const END: &str = "<!-- generated: end -->";

/// Replaces the generated section of a page; the page with its markers must exist.
pub fn write_section(page: &Path, section: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let Some(text) = replaced(&text, section) else {
        bail!("{} has no `{BEGIN}` and `{END}` on lines of their own", page.display());
    };
    fs::write(page, text)?;
    println!("wrote {}", page.display());
    Ok(())
}

fn replaced(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", section.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_changes() {
        let page = format!("# Title\nby hand\n{BEGIN}\nold\n{END}\nalso by hand\n");
        let once = replaced(&page, "new\n").unwrap();
        assert_eq!(once, format!("# Title\nby hand\n{BEGIN}\n\nnew\n\n{END}\nalso by hand\n"));
        assert_eq!(replaced(&once, "new").unwrap(), once);
    }

    #[test]
    fn a_page_without_markers_is_refused() {
        assert_eq!(replaced("# Title\n", "new"), None);
    }
}
