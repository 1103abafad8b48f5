//! Pictures drawn in code: a skyline of walls as SVG, and a landscape as PNG in any size.

use hyper::{Request, StatusCode, header};

use super::reply::{Reply, full, number, with};

/// Largest width of a PNG, in pixels; the height is five eighths of it.
const MAX_WIDTH: u64 = 1600;
/// Towers of the skyline.
const TOWERS: u64 = 9;
/// Longest stored block of DEFLATE, in bytes (RFC 1951 section 3.2.4).
const MAX_STORED_BYTES: usize = 65_535;

/// A skyline that depends on `seed`: the same seed, the same picture.
pub fn svg<B>(request: &Request<B>) -> Reply {
    let seed = number(request.uri(), "seed", 1, 0, u64::MAX);
    picture("image/svg+xml", skyline(seed))
}

/// A landscape `width` pixels wide.
pub fn png<B>(request: &Request<B>) -> Reply {
    let width = number(request.uri(), "width", 320, 16, MAX_WIDTH) as u32;
    picture("image/png", landscape(width, width * 5 / 8))
}

fn picture(media_type: &'static str, content: impl Into<bytes::Bytes>) -> Reply {
    let content = content.into();
    let hash = blake3::hash(&content).to_hex();
    let reply = full(StatusCode::OK, media_type, content);
    let reply = with(reply, header::ETAG, format!("\"{}\"", hash.get(..16).unwrap_or_default()));
    with(reply, header::CACHE_CONTROL, "public, max-age=3600")
}

/// Towers of varying width and height, each with merlons on top.
fn skyline(seed: u64) -> String {
    let mut random = base::random::Random::seeded(seed);
    let mut towers = String::new();
    let mut left = 0;
    for tower in 0..TOWERS {
        let (width, top) = (60 + random.next_u64() % 5 * 12, 90 + random.next_u64() % 120);
        let shade = 22 + tower * 3 + random.next_u64() % 6;
        let mut outline = format!("M{left} 320V{top}");
        for merlon in 0..width / 24 {
            let x = left + merlon * 24;
            outline.push_str(&format!("H{x}V{}h12v14h12", top - 14));
        }
        outline.push_str(&format!("H{}V320z", left + width));
        towers.push_str(&format!("<path d=\"{outline}\" fill=\"hsl(158 22% {shade}%)\"/>\n"));
        left += width - 6;
    }
    let (sun_x, sun_y) = (80 + random.next_u64() % 480, 60 + random.next_u64() % 60);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 320\" role=\"img\" aria-label=\"Skyline {seed}\">\n\
         <rect width=\"640\" height=\"320\" fill=\"#e9dcc3\"/>\n\
         <circle cx=\"{sun_x}\" cy=\"{sun_y}\" r=\"34\" fill=\"#d9744a\"/>\n{towers}</svg>\n"
    )
}

/// A PNG of hills at dusk and a wall before them, with a palette of 256 colours (PNG, third edition).
fn landscape(width: u32, height: u32) -> Vec<u8> {
    let mut rows = Vec::with_capacity((width as usize + 1) * height as usize);
    for y in 0..height {
        rows.push(0);
        rows.extend(
            (0..width).map(|x| colour(f64::from(x) / f64::from(width), f64::from(y) / f64::from(height))),
        );
    }
    let mut header = Vec::from(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    // Bit depth 8, colour type 3 (palette), and the only compression, filter and no interlacing.
    header.extend([8, 3, 0, 0, 0]);
    let mut file = Vec::from(*b"\x89PNG\r\n\x1a\n");
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"PLTE", &palette());
    chunk(&mut file, b"IDAT", &stored(&rows));
    chunk(&mut file, b"IEND", &[]);
    file
}

/// Palette entry of a place; both coordinates run from 0 to 1, downwards.
fn colour(x: f64, y: f64) -> u8 {
    let merlon = if (x * 20.0).fract() < 0.5 { 0.045 } else { 0.0 };
    if y > 0.86 - merlon {
        let course = (y * 40.0).floor();
        let joint = ((x * 24.0 + course % 2.0 * 0.5).fract() < 0.04) || ((y * 40.0).fract() < 0.08);
        return if joint { 251 } else { 250 };
    }
    for (index, (base, height, waves, shift)) in
        [(0.72, 0.05, 2.6, 0.3), (0.62, 0.07, 1.7, 2.1), (0.52, 0.09, 1.1, 4.0)].into_iter().enumerate()
    {
        let angle = x * waves * std::f64::consts::TAU + shift;
        let ridge = base + height * (angle.sin() * 0.7 + (angle * 2.3).sin() * 0.3);
        if y > ridge {
            return [242, 241, 240].get(index).copied().unwrap_or(240);
        }
    }
    let (dx, dy) = ((x - 0.68) * 1.6, y - 0.34);
    if dx * dx + dy * dy < 0.011 {
        return 252;
    }
    (y.clamp(0.0, 1.0) * 239.0) as u8
}

/// 240 steps of sky, then hills, wall and sun; red, green and blue for each.
fn palette() -> Vec<u8> {
    let mut colours = Vec::with_capacity(256 * 3);
    let (top, bottom) = ([38.0, 70.0, 92.0], [250.0, 190.0, 130.0]);
    for step in 0..240 {
        let share = (f64::from(step) / 150.0).min(1.0);
        colours
            .extend(top.iter().zip(bottom).map(|(from, to): (&f64, f64)| (from + (to - from) * share) as u8));
    }
    for rgb in [[104, 134, 128], [72, 106, 98], [48, 80, 72]] {
        colours.extend(rgb);
    }
    colours.resize(250 * 3, 0);
    for rgb in [[46, 60, 54], [34, 45, 40], [255, 226, 168]] {
        colours.extend(rgb);
    }
    colours.resize(256 * 3, 0);
    colours
}

/// A zlib stream that stores its bytes as they are (RFC 1950, RFC 1951): larger than need be, which is what a demo
/// of transfers wants.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(MAX_STORED_BYTES).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(bytes).to_be_bytes());
    stream
}

/// A chunk: length, name, data, checksum of name and data.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(name);
    file.extend(data);
    let checksum = crc32(file.get(start..).unwrap_or_default());
    file.extend(checksum.to_be_bytes());
}

/// The checksum of RFC 1950 section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// The checksum of PNG annex D, byte by byte with a table made when the program is compiled.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        let entry = CRC_TABLE.get(((crc ^ u32::from(byte)) & 0xff) as usize).copied().unwrap_or_default();
        entry ^ (crc >> 8)
    })
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_their_published_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32/ISO-HDLC");
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(crc32(b"IEND"), 0xae42_6082, "the last four bytes of every PNG file");
    }

    #[test]
    fn a_png_is_made_of_whole_chunks() {
        let file = landscape(320, 200);
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        let (mut at, mut names) = (8, Vec::new());
        while at < file.len() {
            let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
            names.push(String::from_utf8_lossy(&file[at + 4..at + 8]).into_owned());
            at += 12 + length;
        }
        assert_eq!(at, file.len());
        assert_eq!(names, ["IHDR", "PLTE", "IDAT", "IEND"]);
        assert!(file.len() > 321 * 200, "every row is there, with its filter byte");
    }

    #[test]
    fn a_skyline_depends_on_its_seed_only() {
        assert_eq!(skyline(7), skyline(7));
        assert_ne!(skyline(7), skyline(8));
    }
}
