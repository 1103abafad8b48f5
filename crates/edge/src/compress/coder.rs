//! The three compressors behind one face: bytes in, bytes out, flush, finish; each with the memory `Coding::memory` says.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::Coding;
use crate::message::BodyLength;

/// Two thirds of the time of the usual 6 for some percents more bytes.
const GZIP_LEVEL: u32 = 4;
/// What the window of deflate can be at most, as a power of two.
const GZIP_WINDOW: u8 = 15;
/// The highest that is fast enough for content made for one visitor: 5 splits blocks, takes up to 25 times as long, and
/// 32 MiB where a short length is known.
const BROTLI_QUALITY: u32 = 4;
/// 128 KiB, as a power of two: twice that saves nothing on pages, and the memory of a response is bounded by it.
const BROTLI_WINDOW: u32 = 17;
/// Of content said to be 1 MiB or more, the encoder makes tables of 4 MiB.
const BROTLI_LARGEST_HINT: u32 = (1 << 20) - 1;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// As for Brotli.
const ZSTD_WINDOW: u32 = 17;

/// A compressor.
pub enum Coder {
    /// Deflate in a gzip wrapper.
    Gzip(Compress),
    /// Brotli.
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    /// Zstandard.
    Zstd(Encoder<'static>),
}

/// What to do with the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take more.
    Write,
    /// Hand out everything that was taken, so that it can be read at the other end.
    Flush,
    /// Hand out everything, and the end.
    Finish,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Bytes of input taken.
    pub read: usize,
    /// Bytes of output made.
    pub written: usize,
    /// For a flush or a finish: nothing of it is left.
    pub whole: bool,
}

/// The compressor refused; it never does with the parameters and steps used here, unless memory is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compressor refused to go on")]
pub struct CoderError;

impl Coder {
    /// A compressor for content of `length`: a shorter one needs less of a window.
    pub fn new(coding: Coding, length: BodyLength) -> Result<Self, CoderError> {
        Self::with_level(coding, level(coding), length)
    }

    /// The same at another level; for measuring.
    pub fn with_level(coding: Coding, level: i32, length: BodyLength) -> Result<Self, CoderError> {
        Ok(match coding {
            Coding::Gzip => {
                Self::Gzip(Compress::new_gzip(Compression::new(level.unsigned_abs()), GZIP_WINDOW))
            }
            Coding::Brotli => Self::Brotli(Box::new(brotli(level.unsigned_abs(), length))),
            Coding::Zstd => Self::Zstd(zstandard(level, length)?),
        })
    }

    /// Takes of `input`, writes to `output`. Input is for `Step::Write` only. `output` is not empty.
    pub fn step(&mut self, input: &[u8], output: &mut [u8], step: Step) -> Result<Done, CoderError> {
        match self {
            Self::Gzip(state) => gzip_step(state, input, output, step),
            Self::Brotli(state) => brotli_step(state, input, output, step),
            Self::Zstd(state) => zstd_step(state, input, output, step),
        }
    }
}

/// The level in use, in the compressor's own scale.
pub const fn level(coding: Coding) -> i32 {
    match coding {
        Coding::Gzip => GZIP_LEVEL as i32,
        Coding::Brotli => BROTLI_QUALITY as i32,
        Coding::Zstd => ZSTD_LEVEL,
    }
}

fn brotli(quality: u32, length: BodyLength) -> BrotliEncoderStateStruct<StandardAlloc> {
    let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
    let mut window = BROTLI_WINDOW;
    if let BodyLength::Exact(bytes) = length {
        // RFC 7932 section 9.1: a window is 16 bytes short of its power of two, and 10 is the least one.
        let needed =
            bytes.saturating_add(16).checked_next_power_of_two().map_or(u64::BITS, u64::trailing_zeros);
        window = needed.clamp(10, BROTLI_WINDOW);
        let hint = u32::try_from(bytes).map_or(BROTLI_LARGEST_HINT, |bytes| bytes.min(BROTLI_LARGEST_HINT));
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint);
    }
    state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, quality);
    state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, window);
    state
}

fn zstandard(level: i32, length: BodyLength) -> Result<Encoder<'static>, CoderError> {
    let mut state = Encoder::new(level).map_err(|_| CoderError)?;
    state.set_parameter(CParameter::WindowLog(ZSTD_WINDOW)).map_err(|_| CoderError)?;
    if let BodyLength::Exact(bytes) = length {
        state.set_pledged_src_size(Some(bytes)).map_err(|_| CoderError)?;
    }
    Ok(state)
}

fn gzip_step(state: &mut Compress, input: &[u8], output: &mut [u8], step: Step) -> Result<Done, CoderError> {
    let (read, written) = (state.total_in(), state.total_out());
    let flush = match step {
        Step::Write => FlushCompress::None,
        Step::Flush => FlushCompress::Sync,
        Step::Finish => FlushCompress::Finish,
    };
    let status = state.compress(input, output, flush).map_err(|_| CoderError)?;
    let read = (state.total_in() - read) as usize;
    let written = (state.total_out() - written) as usize;
    // zlib has flushed when it left room behind.
    let whole = match step {
        Step::Finish => status == Status::StreamEnd,
        _ => written < output.len(),
    };
    Ok(Done { read, written, whole })
}

fn brotli_step(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
    step: Step,
) -> Result<Done, CoderError> {
    let operation = match step {
        Step::Write => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Step::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Step::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let (mut input_left, mut read) = (input.len(), 0);
    let (mut output_left, mut written) = (output.len(), 0);
    let went_well = state.compress_stream(
        operation,
        &mut input_left,
        input,
        &mut read,
        &mut output_left,
        output,
        &mut written,
        &mut None,
        &mut |_, _, _, _| (),
    );
    let whole = match step {
        Step::Finish => state.is_finished(),
        _ => !state.has_more_output(),
    };
    went_well.then_some(Done { read, written, whole }).ok_or(CoderError)
}

fn zstd_step(
    state: &mut Encoder<'static>,
    input: &[u8],
    output: &mut [u8],
    step: Step,
) -> Result<Done, CoderError> {
    let mut output = OutBuffer::around(output);
    let mut input = InBuffer::around(input);
    let left = match step {
        Step::Write => state.run(&mut input, &mut output).map(|_| 0),
        Step::Flush => state.flush(&mut output),
        Step::Finish => state.finish(&mut output, true),
    };
    let left = left.map_err(|_| CoderError)?;
    Ok(Done { read: input.pos(), written: output.pos(), whole: left == 0 })
}
