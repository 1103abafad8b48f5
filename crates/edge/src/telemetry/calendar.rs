//! UTC dates as text, without a time zone library: log lines need them a hundred thousand times a second.

use base::time::Timestamp;

/// 9999-12-31T23:59:59Z, the last second RFC 3339 can write; later times are shown as this one.
const LAST_SECOND: u64 = 253_402_300_799;
/// Digits of a two-digit number at `2 * number`.
const PAIRS: &[u8; 200] = b"\
    0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// Length of `2026-10-18T12:00:00.123456Z`.
const RFC3339_BYTES: usize = 27;

/// Writes RFC 3339 times with microseconds and keeps the date of the last second, which most lines share.
#[derive(Debug)]
pub(crate) struct Clock {
    second: u64,
    text: [u8; RFC3339_BYTES],
}

impl Clock {
    pub(crate) fn new() -> Self {
        let mut clock = Self { second: 0, text: *b"0000-00-00T00:00:00.000000Z" };
        clock.set_second(0);
        clock
    }

    /// The time as `2026-10-18T12:00:00.123456Z`.
    pub(crate) fn rfc3339(&mut self, at: Timestamp) -> &[u8; RFC3339_BYTES] {
        let second = at.seconds().min(LAST_SECOND);
        if second != self.second {
            self.set_second(second);
        }
        let micros = (at.0 % 1_000_000) as u32;
        let [.., a, b, c, d, e, f, _z] = &mut self.text;
        [*a, *b] = pair(micros / 10_000);
        [*c, *d] = pair(micros / 100 % 100);
        [*e, *f] = pair(micros % 100);
        &self.text
    }

    fn set_second(&mut self, second: u64) {
        let date = Date::of(second);
        let [a, b, c, d, _, e, f, _, g, h, _, i, j, _, k, l, _, m, n, ..] = &mut self.text;
        [*a, *b] = pair(date.year / 100);
        [*c, *d] = pair(date.year % 100);
        [*e, *f] = pair(date.month);
        [*g, *h] = pair(date.day);
        [*i, *j] = pair(date.hour);
        [*k, *l] = pair(date.minute);
        [*m, *n] = pair(date.second);
        self.second = second;
    }
}

/// The time as `20261018T120000.123456Z` (ISO 8601 basic format): fixed width, so names sort by time.
pub(crate) fn basic(at: Timestamp) -> String {
    let Date { year, month, day, hour, minute, second } = Date::of(at.seconds().min(LAST_SECOND));
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{:06}Z", at.0 % 1_000_000)
}

/// Whether a text has the shape that `basic` writes.
pub(crate) fn is_basic(text: &str) -> bool {
    let shape = b"ddddddddTdddddd.ddddddZ";
    text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, &kind)| match kind {
            b'd' => byte.is_ascii_digit(),
            literal => byte == literal,
        })
}

struct Date {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Date {
    /// The proleptic Gregorian date of a second since the epoch; days are counted from 0000-03-01 so that the leap day
    /// ends a year, and 400 years are 146,097 days.
    fn of(seconds: u64) -> Self {
        let days = (seconds / 86_400) as u32 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let time = (seconds % 86_400) as u32;
        Self {
            year: era * 400 + year_of_era + u32::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: time / 3_600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }
}

fn pair(number: u32) -> [u8; 2] {
    let start = (number as usize).min(99) * 2;
    [PAIRS.get(start).copied().unwrap_or(b'0'), PAIRS.get(start + 1).copied().unwrap_or(b'0')]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_an_independent_calendar() {
        let mut clock = Clock::new();
        let mut random = base::random::Random::seeded(11);
        let last = jiff::Timestamp::MAX.as_second() as u64;
        let edges = [0, 951_782_399, 951_782_400, 4_107_542_399, 4_107_542_400, last];
        let drawn: Vec<u64> = (0..20_000).map(|_| random.next_u64() % (last + 1)).collect();
        for second in edges.into_iter().chain(drawn) {
            let micros = random.next_u64() % 1_000_000;
            let ours = clock.rfc3339(Timestamp(second * 1_000_000 + micros)).to_vec();
            let theirs = jiff::Timestamp::from_second(second as i64).unwrap();
            let theirs = format!("{}.{micros:06}Z", theirs.strftime("%Y-%m-%dT%H:%M:%S"));
            assert_eq!(String::from_utf8(ours).unwrap(), theirs);
        }
    }

    #[test]
    fn the_cached_second_changes_with_the_time_in_both_directions() {
        let mut clock = Clock::new();
        for (at, text) in [
            (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
            (1_700_000_000_999_999, "2023-11-14T22:13:20.999999Z"),
            (1_700_000_001_000_000, "2023-11-14T22:13:21.000000Z"),
            (1_699_999_999_000_000, "2023-11-14T22:13:19.000000Z"),
            (u64::MAX, "9999-12-31T23:59:59.551615Z"),
        ] {
            assert_eq!(std::str::from_utf8(clock.rfc3339(Timestamp(at))).unwrap(), text);
        }
    }

    #[test]
    fn file_names_sort_by_time_and_are_recognised() {
        let (earlier, later) =
            (basic(Timestamp(1_700_000_000_000_001)), basic(Timestamp(1_700_000_000_100_000)));
        assert_eq!(earlier, "20231114T221320.000001Z");
        assert!(earlier < later && is_basic(&earlier) && is_basic(&later));
        for other in ["", "gz", "20231114T221320Z", "20231114T221320.00000xZ", "20231114T221320.000001Z.gz"] {
            assert!(!is_basic(other), "{other}");
        }
    }
}
