//! The least that any safe update has to do with a file: read it, hash it, write it, make it durable, put it in place.
//!
//! `floor FILE FOLDER` copies FILE to FOLDER/program that way. Compiled like the agent, for tests/bench/run to hold against it.
#![allow(clippy::disallowed_methods, reason = "no part of the product: nothing but what is measured")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, folder] = paths.as_slice() else {
        return Err(io::Error::other("usage: floor FILE FOLDER"));
    };
    let part = folder.join("part");
    let (mut from, mut to) = (File::open(from)?, File::create(&part)?);
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    // Pieces as large as the agent's.
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece)? {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                to.write_all(&piece[..n])?;
            }
        }
    }
    to.sync_all()?;
    fs::rename(&part, folder.join("program"))?;
    File::open(folder)?.sync_all()?;
    println!("{}", hash.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>());
    Ok(())
}
