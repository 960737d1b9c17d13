//! Random programs of loops, branches and stores: the ground on which marks are shared and hoisted.
//!
//! They aim at what the analyses look for (inductions, counted loops, stores off one base) and at their borders: bounds that
//! wrap, steps that jump over the bound, addresses that leave the memory, host calls in between.
//!
//! Also taken by the `fuzz` example of `vmsync`, which has a `Random` of its own.

use super::Random;
use std::fmt::Write as _;

/// Locals of a generated function: parameters, then inductions and temporaries, all i32.
pub const PARAMS: u64 = 3;
const LOCALS: u64 = 9;

struct Program<'a> {
    random: &'a mut Random,
    text: String,
    depth: u32,
    loops: u32,
    /// Locals that must not be assigned: inductions of the loops around.
    held: Vec<u64>,
}

/// A loop whose counter moves towards a bound, and a pointer with it.
struct Counted<'t> {
    counter: u64,
    pointer: u64,
    next_pointer: String,
    next_counter: String,
    test: &'t str,
    bound: String,
}

impl Program<'_> {
    fn pick<'t>(&mut self, options: &[&'t str]) -> &'t str {
        options[self.random.below(options.len() as u64) as usize]
    }

    fn constant(&mut self) -> i64 {
        match self.random.below(8) {
            0 => 0,
            1 => 1,
            2 => self.random.below(64) as i64,
            3 => -(self.random.below(64) as i64),
            4 => 4096 * self.random.below(4) as i64 - self.random.below(20) as i64,
            5 => 65536 + 4096 - self.random.below(9) as i64,
            6 => self.random.below(131_072) as i64,
            _ => self.random.number() as i32 as i64,
        }
    }

    /// A number that the instrumenter does not see through, more often than not.
    fn opaque(&mut self, number: i64) -> String {
        let number = number as i32;
        if self.random.below(4) == 0 {
            return format!("(i32.const {number})");
        }
        format!("(i32.xor (i32.const {number}) (i32.and (local.get 0) (i32.const 0)))")
    }

    fn set(&mut self, local: u64, number: i64) {
        let number = self.opaque(number);
        let _ = writeln!(self.text, "(local.set {local} {number})");
    }

    fn value(&mut self, depth: u32) -> String {
        let local = self.random.below(LOCALS);
        match self.random.below(if depth == 0 { 3 } else { 8 }) {
            0 => format!("(i32.const {})", self.constant()),
            1 | 2 => format!("(local.get {local})"),
            3 => format!(
                "(i32.add {} (i32.const {}))",
                self.value(depth - 1),
                self.constant()
            ),
            4 => format!("(i32.add {} {})", self.value(depth - 1), self.value(depth - 1)),
            5 => format!(
                "(i32.shl {} (i32.const {}))",
                self.value(depth - 1),
                self.random.below(5)
            ),
            6 => format!("(i32.sub {} {})", self.value(depth - 1), self.value(depth - 1)),
            _ => {
                let op = self.pick(&["i32.mul", "i32.and", "i32.xor", "i32.shr_u"]);
                format!("({op} {} {})", self.value(depth - 1), self.value(depth - 1))
            }
        }
    }

    /// An address that is within the memory more often than not.
    fn address(&mut self) -> String {
        let value = self.value(2);
        match self.random.below(6) {
            0 => value,
            1 => format!("(i32.and {value} (i32.const 0x1ffff))"),
            2 => format!("(i32.const {})", self.random.below(131_000)),
            _ => format!("(local.get {})", self.random.below(LOCALS)),
        }
    }

    fn offset(&mut self) -> u64 {
        match self.random.below(5) {
            0 => 0,
            1 => self.random.below(40),
            2 => 4 * self.random.below(8),
            3 => 4080 + self.random.below(40),
            _ => self.random.below(9000),
        }
    }

    fn store(&mut self) {
        let (address, offset) = (self.address(), self.offset());
        let value = self.value(1);
        let count = 1 + self.random.below(4);
        for number in 0..count {
            let offset = if number == 0 { offset } else { self.offset() };
            let text = match self.random.below(9) {
                0 => format!("(i64.store offset={offset} {address} (i64.extend_i32_u {value}))"),
                1 => format!("(i32.store8 offset={offset} {address} {value})"),
                2 => format!("(v128.store offset={offset} {address} (i32x4.splat {value}))"),
                3 => format!(
                    "(drop (i32.atomic.rmw.add offset={} {address} {value}))",
                    offset & !3
                ),
                4 => format!(
                    "(memory.fill {address} {value} (i32.const {}))",
                    [0, 3, 17, 18, 4096, 4097, 5000][self.random.below(7) as usize]
                ),
                _ => format!("(i32.store offset={offset} {address} {value})"),
            };
            let _ = writeln!(self.text, "{text}");
        }
    }

    fn assign(&mut self) {
        let local = self.random.below(LOCALS);
        if self.held.contains(&local) {
            return;
        }
        let value = self.value(2);
        let _ = writeln!(self.text, "(local.set {local} {value})");
    }

    fn statement(&mut self) {
        match self.random.below(if self.depth > 3 { 6 } else { 13 }) {
            0..=3 => self.store(),
            4 => self.assign(),
            5 => {
                if self.random.below(4) == 0 {
                    self.text.push_str("(call $collect)\n");
                }
            }
            6 => self.choice(),
            7 => self.block(),
            8 => self.wild_loop(),
            9 => self.burst(),
            _ => self.counted_loop(),
        }
    }

    fn body(&mut self, most: u64) {
        self.depth += 1;
        for _ in 0..1 + self.random.below(most) {
            self.statement();
        }
        self.depth -= 1;
    }

    fn choice(&mut self) {
        let condition = self.value(1);
        let _ = writeln!(self.text, "(if {condition} (then");
        self.body(3);
        if self.random.below(2) == 0 {
            self.text.push_str(") (else\n");
            self.body(3);
        }
        self.text.push_str("))\n");
    }

    fn block(&mut self) {
        self.text.push_str("(block\n");
        self.body(2);
        let condition = self.value(1);
        let _ = writeln!(self.text, "(br_if 0 {condition})");
        self.body(2);
        self.text.push_str(")\n");
    }

    /// Stores off one base around the border of a page, with calls, choices and blocks between them.
    fn burst(&mut self) {
        let Some(base) = (0..LOCALS).rev().find(|local| !self.held.contains(local)) else {
            return;
        };
        // Half of the time the first byte is the last of a page.
        let before = if self.random.below(2) == 0 {
            1
        } else {
            self.random.below(30)
        };
        let at = 4096 * (1 + self.random.below(30)) - before;
        let mut first = true;
        let _ = writeln!(self.text, "(local.set {base} (i32.const {at}))");
        for _ in 0..3 + self.random.below(8) {
            let offset = match self.random.below(8) {
                _ if first => 0,
                0 => self.random.below(8400),
                _ => self.random.below(26),
            };
            first = false;
            let store = match self.random.below(4) {
                0 => format!(
                    "(i64.store (i32.add (local.get {base}) (i32.const {offset})) (i64.const {}))",
                    self.random.number() as i64
                ),
                1 => format!(
                    "(i32.store8 offset={offset} (local.get {base}) (i32.const {}))",
                    self.random.below(256)
                ),
                _ => format!(
                    "(i32.store offset={offset} (local.get {base}) (i32.const {}))",
                    self.random.number() as i32
                ),
            };
            let bit = self.random.below(16);
            let condition = format!("(i32.and (i32.shr_u (local.get 0) (i32.const {bit})) (i32.const 1))");
            let item = match self.random.below(10) {
                0 | 1 => "(call $collect)".to_string(),
                2 => format!("(if {condition} (then (call $collect) {store}))"),
                3 => format!("(if {condition} (then {store}) (else (call $collect)))"),
                4 => format!("(block (br_if 0 {condition}) {store})"),
                5 => {
                    let other = format!("(i32.store8 offset={offset} (local.get {base}) (i32.const 171))");
                    format!("(if {condition} (then {store}) (else {other}))")
                }
                _ => store,
            };
            let _ = writeln!(self.text, "{item}");
        }
    }

    /// A loop whose end depends on anything; fuel ends it.
    fn wild_loop(&mut self) {
        let local = self.random.below(LOCALS);
        self.text.push_str("(loop\n");
        self.body(3);
        let step = self.constant();
        let condition = self.value(2);
        let _ = writeln!(
            self.text,
            "(local.set {local} (i32.add (local.get {local}) (i32.const {step})))"
        );
        let _ = writeln!(self.text, "(br_if 0 (i32.and {condition} (i32.const 1))))");
    }

    /// A loop in the forms that compilers emit, with bounds that are mostly reasonable.
    fn counted_loop(&mut self) {
        let counter = self.random.below(LOCALS);
        let pointer = self.random.below(LOCALS);
        if self.held.contains(&counter) || self.held.contains(&pointer) || counter == pointer {
            return;
        }
        let step = [1, 1, 1, 2, 3, 4, 8, 12, 16, 100, 4096, 5000][self.random.below(12) as usize];
        let trips = self.random.below(40) as i64;
        let up = self.random.below(3) > 0;
        let begin = match self.random.below(5) {
            0 => self.constant(),
            1 => i64::from(i32::MIN) + self.random.below(40) as i64,
            2 => i64::from(i32::MAX) - step * trips + self.random.below(3) as i64,
            3 => -(step * trips) + self.random.below(3) as i64 - 1,
            _ => self.random.below(100_000) as i64,
        };
        let bound = begin
            + if up { step * trips } else { -step * trips }
            + [0, 0, 0, 1, -1][self.random.below(5) as usize];
        let (begin, bound) = (begin as i32, bound as i32);
        let signed = if up {
            ["i32.ne", "i32.lt_s", "i32.lt_u", "i32.le_s", "i32.le_u"]
        } else {
            ["i32.ne", "i32.gt_s", "i32.gt_u", "i32.ge_s", "i32.ge_u"]
        };
        let test = self.pick(&signed);
        let stride =
            [0, 1, 2, 4, 8, 16, 24, -1, -4, -8, 640, 4096, -4096, 6000][self.random.below(14) as usize];
        let from = if stride < 0 {
            131_000 - self.random.below(5000)
        } else {
            self.random.below(90_000)
        };
        if self.random.below(8) > 0 {
            self.set(pointer, from as i64);
        }
        self.set(counter, begin.into());
        let marks = self.held.len();
        let bound = if self.random.below(3) == 0 {
            let free = (0..LOCALS).find(|l| !self.held.contains(l) && *l != counter && *l != pointer);
            match free {
                Some(local) => {
                    self.set(local, bound.into());
                    self.held.push(local);
                    format!("(local.get {local})")
                }
                None => format!("(i32.const {bound})"),
            }
        } else {
            format!("(i32.const {bound})")
        };
        self.loops += 1;
        self.held.extend([counter, pointer]);
        let (next_pointer, next_counter) = self.moves(pointer, counter, stride, step, up);
        let counted = Counted {
            counter,
            pointer,
            next_pointer,
            next_counter,
            test,
            bound,
        };
        self.form(&counted);
        self.held.truncate(marks);
    }

    fn form(&mut self, counted: &Counted<'_>) {
        let Counted {
            counter,
            pointer,
            next_pointer,
            next_counter,
            test,
            bound,
        } = counted;
        let (counter, pointer) = (*counter, *pointer);
        let move_on = format!("(local.set {pointer} {next_pointer}) (local.set {counter} {next_counter})\n");
        match self.random.below(7) {
            4..=6 => self.unusual_form(counted),
            0 => {
                self.text.push_str("(block (loop\n");
                let _ = writeln!(
                    self.text,
                    "(br_if 1 (i32.eqz ({test} (local.get {counter}) {bound})))"
                );
                self.loop_body(counter, pointer);
                let _ = writeln!(self.text, "{move_on} (br 0)))");
            }
            1 => {
                self.text.push_str("(loop\n");
                let _ = write!(self.text, "{move_on}");
                self.loop_body(counter, pointer);
                let _ = writeln!(self.text, "(br_if 0 ({test} (local.get {counter}) {bound}))");
                self.behind_back_edge(counter, pointer);
            }
            2 => {
                self.text.push_str("(loop\n");
                self.loop_body(counter, pointer);
                let _ = writeln!(self.text, "(local.set {pointer} {next_pointer})");
                let tee = format!("(local.tee {counter} {next_counter})");
                let _ = writeln!(self.text, "(br_if 0 ({test} {tee} {bound}))");
                self.behind_back_edge(counter, pointer);
            }
            _ => {
                self.text.push_str("(loop\n");
                self.loop_body(counter, pointer);
                let _ = writeln!(
                    self.text,
                    "{move_on} (br_if 0 ({test} (local.get {counter}) {bound}))"
                );
                self.behind_back_edge(counter, pointer);
            }
        }
    }

    /// Ends a loop, sometimes with what runs once when it is over.
    fn behind_back_edge(&mut self, counter: u64, pointer: u64) {
        if self.random.below(4) == 0 {
            self.loop_body(counter, pointer);
        }
        self.text.push_str(")\n");
    }

    /// Loops that look counted and are not.
    fn unusual_form(&mut self, counted: &Counted<'_>) {
        let Counted {
            counter,
            pointer,
            next_pointer,
            next_counter,
            test,
            bound,
        } = counted;
        let (counter, pointer) = (*counter, *pointer);
        let move_on = format!("(local.set {pointer} {next_pointer}) (local.set {counter} {next_counter})\n");
        match self.random.below(3) {
            0 => {
                // The test is not on every way to the back edge.
                self.text.push_str("(block (loop\n");
                self.loop_body(counter, pointer);
                let _ = writeln!(
                    self.text,
                    "{move_on} (if (i32.and (local.get {counter}) (i32.const 4))
                       (then (br_if 2 (i32.eqz ({test} (local.get {counter}) {bound})))))
                     (br 0)))"
                );
            }
            1 => {
                // The test comes after the back edge.
                self.text.push_str("(block (loop\n");
                self.loop_body(counter, pointer);
                let _ = writeln!(
                    self.text,
                    "{move_on} (if (i32.and (local.get {counter}) (i32.const 7)) (then (br 1)))
                     (br_if 1 (i32.eqz ({test} (local.get {counter}) {bound})))))"
                );
            }
            _ => {
                // Two back edges.
                self.text.push_str("(loop\n");
                self.loop_body(counter, pointer);
                let _ = writeln!(
                    self.text,
                    "{move_on} (br_if 0 (i32.and (local.get {counter}) (i32.const 3)))
                     {move_on} (br_if 0 ({test} (local.get {counter}) {bound})))"
                );
            }
        }
    }

    /// The next values of a pointer and a counter: they move by constants, or by what a local holds.
    fn moves(&mut self, pointer: u64, counter: u64, stride: i64, step: i64, up: bool) -> (String, String) {
        let op = if up { "i32.add" } else { "i32.sub" };
        let free = (0..LOCALS).find(|local| !self.held.contains(local));
        let (Some(local), true) = (free, self.random.below(3) == 0) else {
            let step = if up { step } else { -step };
            return (
                format!("(i32.add (local.get {pointer}) (i32.const {stride}))"),
                format!("(i32.add (local.get {counter}) (i32.const {step}))"),
            );
        };
        let step = [step, step, step, step, 0, -step][self.random.below(6) as usize];
        // Assigned before the loop: the loop's own text is not begun yet.
        self.set(local, step);
        self.held.push(local);
        let pointer = match self.random.below(3) {
            0 => format!("(i32.add (local.get {pointer}) (i32.const {stride}))"),
            1 => format!("(i32.add (local.get {local}) (local.get {pointer}))"),
            _ => format!("(i32.sub (local.get {pointer}) (local.get {local}))"),
        };
        (
            pointer,
            format!("({op} (local.get {counter}) (local.get {local}))"),
        )
    }

    fn loop_body(&mut self, counter: u64, pointer: u64) {
        for _ in 0..1 + self.random.below(3) {
            let invariant = self.random.below(LOCALS);
            let base = match self.random.below(5) {
                0 => format!("(i32.add (local.get {pointer}) (local.get {invariant}))"),
                1 => format!(
                    "(i32.shl (local.get {counter}) (i32.const {}))",
                    self.random.below(4)
                ),
                2 => format!(
                    "(i32.sub (local.get {pointer}) (i32.const {}))",
                    self.random.below(5000)
                ),
                3 => format!("(local.get {invariant})"),
                _ => format!("(local.get {pointer})"),
            };
            let offset = self.offset();
            let value = self.value(0);
            let text = match self.random.below(4) {
                0 => format!("(i64.store offset={offset} {base} (i64.extend_i32_u {value}))"),
                1 => format!("(i32.store8 offset={offset} {base} {value})"),
                _ => format!("(i32.store offset={offset} {base} {value})"),
            };
            let _ = writeln!(self.text, "{text}");
        }
        if self.random.below(2) == 0 {
            self.body(2);
        }
    }
}

/// The text of a module that exports `run`, a function of [`PARAMS`] numbers, and imports `host.collect`. It need not end.
pub fn program(random: &mut Random) -> String {
    let mut program = Program {
        random,
        text: String::new(),
        depth: 0,
        loops: 0,
        held: Vec::new(),
    };
    program.body(6);
    let body = program.text;
    let params = "i32 ".repeat(PARAMS as usize);
    format!(
        "(module (import \"host\" \"collect\" (func $collect)) (memory (export \"memory\") 2 2)
           (func (export \"run\") (param {params}) (local i32 i32 i32 i32 i32 i32)\n{body}))"
    )
}
