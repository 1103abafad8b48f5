//! Input cut into pieces the way a network does it: anywhere.

/// The two bytes in front of an input say where it is cut; answers where, and the input.
pub fn seed(data: &[u8]) -> Option<(u16, &[u8])> {
    let (seed, input) = data.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*seed), input))
}

/// The pieces: all of it for seed 0, single bytes for seed 1, lengths that vary with any other.
pub fn pieces(seed: u16, input: &[u8]) -> Vec<&[u8]> {
    let mut state = u64::from(seed);
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let length = match seed {
            0 => rest.len() as u64,
            1 => 1,
            _ => {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Short pieces are as likely as long ones.
                let longest = 1_u64 << ((state >> 40) % 9);
                1 + (state >> 48) % longest
            }
        };
        let (piece, after) = rest.split_at(usize::try_from(length).unwrap_or(1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
