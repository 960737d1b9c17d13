//! Conway's Life whose world is its memory: a cell is a pixel in a region, and its colour tells how long it has lived.
//!
//! Only cells that change are stored to, so pages are dirty where something happens. The functions are those of `sketch`,
//! and `step`.

use core::cell::RefCell;

use vmsync_guest::{Error, Region};

const WIDTH: usize = 288;
const HEIGHT: usize = 192;
const CELLS: usize = WIDTH * HEIGHT;
/// Cells behind the first page, which holds the generation.
const HEADER_WORDS: usize = 1024;
const DEAD: u32 = 0;
/// Colours of a living cell by age, RGBA with red in the low byte.
const AGES: [u32; 6] = [
    0xff7a_f0ff,
    0xff3c_c8ff,
    0xff46_8cff,
    0xff6e_5af0,
    0xffa0_4bc8,
    0xffb4_5078,
];

struct World {
    region: Region,
    /// Living cells of this generation; scratch that nobody misses.
    alive: Vec<u8>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fn status(result: Result<(), Error>) -> i32 {
    result.map_or_else(
        |error| error.kern_return().map_or(-1000, |code| -code.code()),
        |()| 0,
    )
}

fn with_cells<T: Default>(work: impl FnOnce(&mut [u32], &mut [u8]) -> T) -> T {
    WORLD.with_borrow_mut(|world| {
        let Some(World { region, alive }) = world else {
            return T::default();
        };
        region
            .view_mut_slice::<u32>()
            .map_or_else(|_| T::default(), |words| work(words, alive))
    })
}

/// Maps the world: a random lake the first time, later as it was flushed last.
#[unsafe(no_mangle)]
pub extern "C" fn open() -> i32 {
    let bytes = (HEADER_WORDS + CELLS) * size_of::<u32>();
    let mapped = Region::map("life", bytes).map(|region| {
        let alive = vec![0; CELLS];
        WORLD.set(Some(World { region, alive }));
    });
    with_cells(|words, _| {
        if words[1] == 0 {
            words[1] = 1;
            sow(&mut words[HEADER_WORDS..]);
        }
    });
    status(mapped)
}

/// A lake of random cells in the middle, the same in every world.
fn sow(cells: &mut [u32]) {
    let mut state = 0x9e37_79b9_u32;
    for y in HEIGHT / 4..HEIGHT * 3 / 4 {
        for x in WIDTH / 4..WIDTH * 3 / 4 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            if state.is_multiple_of(3) {
                cells[y * WIDTH + x] = AGES[0];
            }
        }
    }
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
    with_cells(|words, _| words[HEADER_WORDS..].as_ptr().addr())
}

/// One generation more.
#[unsafe(no_mangle)]
pub extern "C" fn step() {
    with_cells(|words, alive| {
        words[0] = words[0].wrapping_add(1);
        let cells = &mut words[HEADER_WORDS..];
        for (alive, cell) in alive.iter_mut().zip(cells.iter()) {
            *alive = u8::from(*cell != DEAD);
        }
        for y in 0..HEIGHT {
            let rows = [(y + HEIGHT - 1) % HEIGHT, y, (y + 1) % HEIGHT].map(|row| row * WIDTH);
            for x in 0..WIDTH {
                let columns = [(x + WIDTH - 1) % WIDTH, x, (x + 1) % WIDTH];
                let here = alive[rows[1] + x];
                let around = rows
                    .iter()
                    .flat_map(|row| columns.map(|column| alive[row + column]))
                    .sum::<u8>()
                    - here;
                let next = next(cells[rows[1] + x], around);
                if next != cells[rows[1] + x] {
                    cells[rows[1] + x] = next;
                }
            }
        }
    });
}

fn next(cell: u32, around: u8) -> u32 {
    match (cell, around) {
        (DEAD, 3) => AGES[0],
        (DEAD, _) => DEAD,
        (_, 2 | 3) => {
            let age = AGES.iter().position(|colour| *colour == cell).unwrap_or(0);
            AGES[(age + 1).min(AGES.len() - 1)]
        }
        _ => DEAD,
    }
}

/// Brings the cells under a line to life; colour 0 kills them.
#[unsafe(no_mangle)]
pub extern "C" fn draw(from_x: f32, from_y: f32, to_x: f32, to_y: f32, radius: f32, colour: u32) {
    with_cells(|words, _| {
        let cells = &mut words[HEADER_WORDS..];
        let steps = (to_x - from_x)
            .abs()
            .max((to_y - from_y).abs())
            .clamp(1.0, 4096.0) as u32;
        for step in 0..=steps {
            let part = step as f32 / steps as f32;
            let (x, y) = (from_x + (to_x - from_x) * part, from_y + (to_y - from_y) * part);
            // A checkered line lives longer than a full one.
            for offset in [-radius * 0.5, 0.0, radius * 0.5] {
                let (x, y) = ((x + offset) as usize % WIDTH, (y - offset) as usize % HEIGHT);
                cells[y * WIDTH + x] = if colour == DEAD { DEAD } else { AGES[0] };
            }
        }
    });
}

/// Kills everything.
#[unsafe(no_mangle)]
pub extern "C" fn clear() {
    with_cells(|words, _| {
        let living = words[HEADER_WORDS..].iter_mut().filter(|cell| **cell != DEAD);
        living.for_each(|cell| *cell = DEAD);
    });
}
