//! `guest-sdk/IMPORTS.md`, which other languages are bound by, says what the host has.

use std::{collections::BTreeSet, path::Path};

use vmsync::{
    Host, KernReturn, Vm,
    abi::{Behavior, Inherit, MODULE, ObjectInfo, OpenFlags, RegionInfo, VmFlags, VmProt, VmSync},
    add_to_linker, add_to_linker_memory64,
};
use wasmtime::{Config, Engine, Linker, Module, Store};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk/IMPORTS.md");
    std::fs::read_to_string(path).expect("the table is there")
}

/// The cells of every row whose first cell is code and whose table has `columns` columns.
fn rows(document: &str, columns: usize) -> Vec<Vec<String>> {
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let cells: Vec<_> = cells.iter().map(|cell| cell.trim().to_string()).collect();
        (cells.len() == columns && cells[0].starts_with('`')).then_some(cells)
    };
    document.lines().filter_map(row).collect()
}

/// `name: *T` and `name: T` as types of Wasm, for memories of `word` bits.
fn wasm_types(parameters: &str, word: &str) -> String {
    let ty = |parameter: &str| match parameter.split_once(": ").expect("a parameter has a type").1 {
        "word" => word.to_string(),
        pointer if pointer.starts_with('*') => word.to_string(),
        other => other.to_string(),
    };
    let parameters = parameters.split(", ").filter(|it| !it.is_empty());
    parameters.map(ty).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_function_is_in_the_table_with_its_type() {
    let document = document();
    let functions = rows(&document, 3);
    let host = Host::default();
    let engine = Engine::new(host.configure(&mut Config::new())).unwrap();
    for word in ["i32", "i64"] {
        let mut linker = Linker::new(&engine);
        if word == "i32" {
            add_to_linker(&mut linker, |vm: &mut Vm| vm).unwrap();
        } else {
            add_to_linker_memory64(&mut linker, |vm: &mut Vm| vm).unwrap();
        }
        let mut imports = String::new();
        for row in &functions {
            let name = row[0].trim_matches('`');
            let (parameters, result) = (wasm_types(&row[1], word), &row[2]);
            imports +=
                &format!("(import \"{MODULE}\" \"{name}\" (func (param {parameters}) (result {result})))");
        }
        let module = Module::new(&engine, format!("(module {imports})")).unwrap();
        let linked = linker.instantiate_pre(&module);
        linked
            .map(|_| ())
            .unwrap_or_else(|error| panic!("{word}: {error:#}"));
        let mut store = Store::new(&engine, Vm::builder(&host).build().unwrap());
        let offered: BTreeSet<_> = linker
            .iter(&mut store)
            .map(|(_, name, _)| format!("`{name}`"))
            .collect();
        let listed: BTreeSet<_> = functions.iter().map(|row| row[0].clone()).collect();
        assert_eq!(offered, listed);
    }
}

/// `NAME NUMBER` pairs of a row.
fn numbers(document: &str, of: &str) -> Vec<(String, u32)> {
    let row = rows(document, 2)
        .into_iter()
        .find(|row| row[0] == format!("`{of}`"));
    let values = row.unwrap_or_else(|| panic!("no row for {of}"))[1].clone();
    let values = values.split([';', '.']).next().expect("a part before the words");
    let pair = |text: &str| {
        let (name, number) = text.trim().split_once(' ').expect("a name and a number");
        let hexadecimal = number
            .strip_prefix("0x")
            .map(|digits| u32::from_str_radix(digits, 16));
        (
            name.to_string(),
            hexadecimal.unwrap_or_else(|| number.parse()).expect("a number"),
        )
    };
    values.split(',').map(pair).collect()
}

#[test]
fn every_number_is_the_hosts() {
    let document = document();
    let results: Vec<_> = numbers(&document, "kern_return")
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    assert_eq!(
        results,
        KernReturn::ALL.map(|result| result.code().cast_unsigned())
    );
    let sum = |of: &str| numbers(&document, of).iter().map(|(_, bit)| bit).sum::<u32>();
    assert_eq!(sum("rights"), OpenFlags::KNOWN.0);
    assert_eq!(sum("flags"), VmFlags::KNOWN.0);
    assert_eq!(sum("protection"), VmProt::READ_WRITE.0);
    assert_eq!(sum("sync_flags"), VmSync::KNOWN.0);
    assert_eq!(
        numbers(&document, "sync_flags")[2],
        ("INVALIDATE".into(), VmSync::INVALIDATE.0)
    );
    assert_eq!(
        numbers(&document, "sync_flags")[1],
        ("SYNCHRONOUS".into(), VmSync::SYNCHRONOUS.0)
    );
    assert_eq!(
        numbers(&document, "rights")[2],
        ("CREATE".into(), OpenFlags::CREATE.0)
    );
    for (name, code) in numbers(&document, "behavior") {
        assert!(Behavior::from_code(code as i32).is_some(), "{name}");
    }
    for (name, code) in numbers(&document, "inheritance") {
        assert!(Inherit::from_code(code as i32).is_some(), "{name}");
    }
    assert_eq!((RegionInfo::FLAVOR, RegionInfo::COUNT), (9, 8));
    for (name, bytes) in [
        ("object_info", ObjectInfo::BYTES),
        ("region_info", RegionInfo::BYTES),
    ] {
        assert!(document.contains(&format!("`{name}`, {bytes} bytes")), "{name}");
    }
}

#[test]
fn every_field_is_where_the_table_says() {
    let document = document();
    let object = ObjectInfo {
        size: 1,
        version: 2,
        address: 3,
        page_size: 4,
        flags: 5,
    };
    let region = RegionInfo {
        protection: 1,
        max_protection: 2,
        inheritance: 3,
        shared: 4,
        offset: 5,
        behavior: 6,
        user_wired_count: 7,
    };
    for (name, bytes) in [
        ("object_info", object.to_bytes()),
        ("region_info", region.to_bytes()),
    ] {
        let row = rows(&document, 2)
            .into_iter()
            .find(|row| row[0].starts_with(&format!("`{name}`")))
            .unwrap();
        for (number, field) in (1_u8..).zip(row[1].split(", ").filter(|part| part.contains(": "))) {
            // A row lists the fields in the order of the structs above, whose values count from 1.
            let Ok(offset) = field.split(' ').next().unwrap().parse::<usize>() else {
                continue;
            };
            assert_eq!(bytes[offset], number, "{name}: {field}");
        }
    }
}
