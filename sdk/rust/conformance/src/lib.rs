//! The Rust SDK's guest for the conformance kit: the text of a message says
//! what to answer. plugins/plugintest documents the commands and checks the
//! answers.

#![no_std]

use core::fmt::{self, Write};
use parley::{Config, Field, Judge, Message, Reply, Spans};

struct Guest {
    mark: [u8; 64],
    mark_len: usize,
    number: i32,
    on: bool,
    list: [([u8; 16], usize); 8],
    items: usize,
    count: u32,
    line: Line,
    spans: Spans,
}

/// The reason being written.
struct Line {
    bytes: [u8; 512],
    n: usize,
}

impl Line {
    fn push(&mut self, b: &[u8]) {
        self.bytes[self.n..self.n + b.len()].copy_from_slice(b);
        self.n += b.len();
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

/// Cuts off the bytes up to the next of a kind.
fn until<'a>(left: &mut &'a [u8], end: u8) -> &'a [u8] {
    let n = left.iter().position(|c| *c == end).unwrap_or(left.len());
    let word = &left[..n];
    *left = left.get(n + 1..).unwrap_or(&[]);
    word
}

fn decimal(b: &[u8]) -> u32 {
    b.iter().fold(0, |v, c| v.wrapping_mul(10).wrapping_add(u32::from(c.wrapping_sub(b'0'))))
}

fn number(left: &mut &[u8]) -> u32 {
    decimal(until(left, b' '))
}

impl Guest {
    fn tell(&mut self, text: fmt::Arguments<'_>) -> Reply<'_> {
        // writing to a Line cannot fail, it can only panic
        let _ = self.line.write_fmt(text);
        Reply::flag(0, &self.line.bytes[..self.line.n]).score(0)
    }

    fn config(&mut self) -> Reply<'_> {
        self.line.push(&self.mark[..self.mark_len]);
        let on = if self.on { "on" } else { "off" };
        let _ = write!(self.line, "|{}|{}|", self.number, on);
        for (i, (item, n)) in self.list[..self.items].iter().enumerate() {
            if i > 0 {
                self.line.push(b",");
            }
            self.line.push(&item[..*n]);
        }
        Reply::flag(0, &self.line.bytes[..self.line.n]).score(0)
    }
}

impl Judge for Guest {
    fn configure(&mut self, config: &mut Config<'_>) {
        while let Some(key) = config.key() {
            match key {
                b"mark" => self.mark_len = config.text(&mut self.mark),
                b"number" => self.number = config.number(-1000, 1000),
                b"on" => self.on = config.bool(),
                b"list" => {
                    config.list();
                    while config.item() {
                        match self.list.get_mut(self.items) {
                            Some((item, n)) => *n = config.text(item),
                            None => config.refuse(),
                        }
                        self.items += 1;
                    }
                }
                _ => config.refuse(),
            }
        }
    }

    fn decide<'a>(&'a mut self, m: &Message<'a>) -> Reply<'a> {
        let mut left = m.text;
        match until(&mut left, b' ') {
            verdict @ (b"flag" | b"hold" | b"deny") => {
                let (code, score) = (number(&mut left) as u16, number(&mut left) as u16);
                match verdict {
                    b"flag" => Reply::flag(code, left),
                    b"hold" => Reply::hold(code, left),
                    _ => Reply::deny(code, left),
                }
                .score(score)
            }
            b"redact" => {
                let (code, score) = (number(&mut left) as u16, number(&mut left) as u16);
                while !left.is_empty() {
                    let mut word = until(&mut left, b' ');
                    let field = if word[0] == b'n' { Field::Normalized } else { Field::Text };
                    word = &word[1..];
                    let start = decimal(until(&mut word, b'-'));
                    self.spans.mask(field, start as usize, decimal(word) as usize);
                }
                Reply::redact(code, "masked", &mut self.spans).score(score)
            }
            b"stripes" => {
                let (n, step) = (number(&mut left) as usize, number(&mut left) as usize);
                for i in (0..n).rev() {
                    self.spans.mask(Field::Text, i * step, i * step + 1);
                }
                Reply::redact(1, "striped", &mut self.spans)
            }
            b"read" => {
                let field = match left {
                    b"text" => m.text,
                    b"normalized" => m.normalized,
                    b"user" => m.user,
                    b"room" => m.room,
                    b"roles" => m.roles,
                    b"kind" => m.kind,
                    _ => return Reply::error(),
                };
                Reply::flag(field.len() as u16, field).score(0)
            }
            b"quote" => {
                let (start, end) = (number(&mut left) as usize, number(&mut left) as usize);
                Reply::flag(0, &m.text[start..end]).score(0)
            }
            b"role" => {
                let role = core::str::from_utf8(left).unwrap_or("");
                Reply::flag(u16::from(m.has_role(role)), "").score(0)
            }
            b"signals" => {
                let s = m.signals;
                self.tell(format_args!("{} {} {}", s.recent_per_minute, s.repeats, s.account_age_hours))
            }
            b"time" => self.tell(format_args!("{}", m.time_ms)),
            b"count" => {
                self.count += 1;
                let count = self.count;
                self.tell(format_args!("{}", count))
            }
            b"config" => self.config(),
            b"error" => Reply::error(),
            b"trap" => panic!("as it was told"),
            b"spin" => loop {
                core::hint::spin_loop()
            },
            _ => Reply::allow(),
        }
    }
}

parley::plugin!(
    Guest = Guest {
        mark: [0; 64],
        mark_len: 0,
        number: 0,
        on: false,
        list: [([0; 16], 0); 8],
        items: 0,
        count: 0,
        line: Line { bytes: [0; 512], n: 0 },
        spans: Spans::new(),
    }
);
