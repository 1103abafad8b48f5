//! Wildcard patterns: `*` stands for any run of bytes, `\*` and `\\` for themselves.

/// A pattern over a whole value.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// The literal runs between the stars: one more than there are stars.
    runs: Vec<Vec<u8>>,
    case_sensitive: bool,
}

impl Pattern {
    pub fn new(text: &[u8], case_sensitive: bool) -> Result<Self, String> {
        let mut runs = vec![Vec::new()];
        let mut bytes = text.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let literal = match byte {
                b'*' if bytes.peek() == Some(&b'*') => {
                    return Err("a wildcard pattern must not contain two consecutive * characters".to_owned());
                }
                b'*' => {
                    runs.push(Vec::new());
                    continue;
                }
                b'\\' => match bytes.next() {
                    Some(escaped @ (b'*' | b'\\')) => escaped,
                    _ => return Err("in a wildcard pattern only \\* and \\\\ are escapes".to_owned()),
                },
                other => other,
            };
            if let Some(run) = runs.last_mut() {
                run.push(if case_sensitive { literal } else { literal.to_ascii_lowercase() });
            }
        }
        Ok(Self { runs, case_sensitive })
    }

    /// How many stars there are.
    pub fn stars(&self) -> usize {
        self.runs.len() - 1
    }

    /// The longest run between stars; every value that fits has it.
    pub fn longest(&self) -> &[u8] {
        self.runs.iter().max_by_key(|run| run.len()).map_or(&[], Vec::as_slice)
    }

    /// Steps a match over this many bytes can take, in the measure of the budget.
    pub fn cost(&self, length: usize) -> usize {
        1 + length.saturating_mul(self.longest().len().max(1)) / 64
    }

    /// Whether the whole value fits.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.walk(value, |_| ())
    }

    /// What each star stands for, the shortest that fit first; nothing when the value does not fit.
    pub fn captures<'v>(&self, value: &'v [u8]) -> Option<Vec<&'v [u8]>> {
        let mut stars = Vec::with_capacity(self.stars());
        self.walk(value, |star| stars.push(star)).then_some(stars)
    }

    fn walk<'v>(&self, value: &'v [u8], mut see: impl FnMut(&'v [u8])) -> bool {
        let [first, rest @ ..] = &*self.runs else { return false };
        let Some((last, middle)) = rest.split_last() else { return self.same(first, value) };
        if value.len() < first.len() + last.len() || !self.same(first, &value[..first.len()]) {
            return false;
        }
        let end = value.len() - last.len();
        if !self.same(last, &value[end..]) {
            return false;
        }
        let mut left = &value[first.len()..end];
        for run in middle {
            let Some(at) = self.find(run, left) else { return false };
            see(&left[..at]);
            left = &left[at + run.len()..];
        }
        see(left);
        true
    }

    fn find(&self, run: &[u8], value: &[u8]) -> Option<usize> {
        if self.case_sensitive {
            return memchr::memmem::find(value, run);
        }
        value.windows(run.len().max(1)).position(|window| self.same(run, window))
    }

    fn same(&self, run: &[u8], value: &[u8]) -> bool {
        if self.case_sensitive { run == value } else { run.eq_ignore_ascii_case(value) }
    }
}
