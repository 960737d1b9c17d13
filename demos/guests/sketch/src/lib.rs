//! A drawing board whose document is its memory: pixels in a region, and no code that saves them.
//!
//! The page reads the pixels where they lie (`pixels`, RGBA in rows), hands over what the pointer does, and syncs between
//! two calls.

use core::cell::RefCell;

use vmsync_guest::{Error, Region};

const WIDTH: usize = 384;
const HEIGHT: usize = 256;
/// Pixels behind the first page, which holds how often the board was touched.
const HEADER_WORDS: usize = 1024;
const WORDS: usize = HEADER_WORDS + WIDTH * HEIGHT;
const PAPER: u32 = 0;

thread_local! {
    static BOARD: RefCell<Option<Region>> = const { RefCell::new(None) };
}

fn status(result: Result<(), Error>) -> i32 {
    result.map_or_else(
        |error| error.kern_return().map_or(-1000, |code| -code.code()),
        |()| 0,
    )
}

fn with_words<T: Default>(work: impl FnOnce(&mut [u32]) -> T) -> T {
    BOARD.with_borrow_mut(|board| match board.as_mut().map(Region::view_mut_slice::<u32>) {
        Some(Ok(words)) => work(words),
        _ => T::default(),
    })
}

/// Maps the board: empty the first time, later as it was synced last. Answers 0, or a negated `kern_return_t`.
#[unsafe(no_mangle)]
pub extern "C" fn open() -> i32 {
    status(Region::map("sketch", WORDS * size_of::<u32>()).map(|region| BOARD.set(Some(region))))
}

/// In pixels.
#[unsafe(no_mangle)]
pub extern "C" fn width() -> u32 {
    WIDTH as u32
}

/// In pixels.
#[unsafe(no_mangle)]
pub extern "C" fn height() -> u32 {
    HEIGHT as u32
}

/// Where the first pixel is.
#[unsafe(no_mangle)]
pub extern "C" fn pixels() -> usize {
    with_words(|words| words[HEADER_WORDS..].as_ptr().addr())
}

/// Draws a line of `colour` from one point to another.
#[unsafe(no_mangle)]
pub extern "C" fn draw(from_x: f32, from_y: f32, to_x: f32, to_y: f32, radius: f32, colour: u32) {
    with_words(|words| {
        words[0] += 1;
        let pixels = &mut words[HEADER_WORDS..];
        let length = (to_x - from_x).abs().max((to_y - from_y).abs());
        let steps = (length.clamp(1.0, 4096.0)) as u32;
        for step in 0..=steps {
            let part = step as f32 / steps as f32;
            dab(
                pixels,
                from_x + (to_x - from_x) * part,
                from_y + (to_y - from_y) * part,
                radius,
                colour,
            );
        }
    });
}

fn dab(pixels: &mut [u32], x: f32, y: f32, radius: f32, colour: u32) {
    let radius = radius.clamp(0.5, 64.0);
    let span = |centre: f32, limit: usize| {
        let first = (centre - radius).floor().max(0.0) as usize;
        let last = (centre + radius).ceil().clamp(0.0, limit as f32) as usize;
        first..last.max(first)
    };
    for row in span(y, HEIGHT) {
        for column in span(x, WIDTH) {
            let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
            let pixel = &mut pixels[row * WIDTH + column];
            // A store of the same value would make the page dirty for nothing.
            if dx * dx + dy * dy <= radius * radius && *pixel != colour {
                *pixel = colour;
            }
        }
    }
}

/// A clean sheet.
#[unsafe(no_mangle)]
pub extern "C" fn clear() {
    with_words(|words| {
        let drawn = words[HEADER_WORDS..].iter_mut().filter(|pixel| **pixel != PAPER);
        drawn.for_each(|pixel| *pixel = PAPER);
    });
}
