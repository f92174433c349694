//! The names of the configuration.

const SLOTS: usize = 4096; // a power of two
const MAX_NAMES: usize = 2000;
const MAX_BYTES: usize = 28 * 1024;
/// Labels of a name in the list.
pub const MAX_LABELS: usize = 8;

// What a name is in the list for: bits of its kind.
pub const DENY: u8 = 1;
pub const ALLOW: u8 = 2;
pub const PROTECT: u8 = 4;
/// What a protected name looks like.
pub const LOOK: u8 = 8;

/// A hash table of names. It never shrinks.
pub struct List {
    slots: [u16; SLOTS],    // 1 + the place of the entry in bytes
    bytes: [u8; MAX_BYTES], // entries: kind, length, name
    len: usize,
    names: usize,
    kinds: u8, // of all names
}

/// How long the ends of a name are that are in the list; 0 for none.
pub struct Ends {
    pub denied: usize,
    pub allowed: usize,
    pub protected: usize,
    pub look: usize,
}

/// The hash of a name, from its last byte to its first, so that those of all
/// its ends cost no more than that of the whole.
#[derive(Clone, Copy)]
pub struct Hash(u32);

impl Hash {
    pub fn new() -> Hash {
        Hash(0x811c_9dc5)
    }

    pub fn add(&mut self, b: u8) {
        self.0 = (self.0 ^ u32::from(b)).wrapping_mul(0x0100_0193);
    }

    fn of(name: &[u8]) -> Hash {
        let mut h = Hash::new();
        for b in name.iter().rev() {
            h.add(*b);
        }
        h
    }

    fn slot(self) -> usize {
        (self.0 ^ self.0 >> 15) as usize % SLOTS
    }
}

impl List {
    pub const fn new() -> List {
        List { slots: [0; SLOTS], bytes: [0; MAX_BYTES], len: 0, names: 0, kinds: 0 }
    }

    /// Adds a name; false if there is no room for it.
    pub fn add(&mut self, kind: u8, name: &[u8]) -> bool {
        self.kinds |= kind;
        let hash = Hash::of(name);
        if let Some(at) = self.find(hash, name) {
            self.bytes[at] |= kind;
            return true;
        }
        if self.names == MAX_NAMES || name.len() > 255 || self.len + 2 + name.len() > MAX_BYTES {
            return false;
        }
        let mut slot = hash.slot();
        while self.slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        self.slots[slot] = self.len as u16 + 1;
        self.bytes[self.len] = kind;
        self.bytes[self.len + 1] = name.len() as u8;
        self.bytes[self.len + 2..self.len + 2 + name.len()].copy_from_slice(name);
        self.len += 2 + name.len();
        self.names += 1;
        true
    }

    /// Whether there is any name of a kind.
    pub fn has(&self, kind: u8) -> bool {
        self.kinds & kind != 0
    }

    /// The place of a name's entry.
    #[inline(never)]
    fn find(&self, hash: Hash, name: &[u8]) -> Option<usize> {
        let mut slot = hash.slot();
        while self.slots[slot] != 0 {
            let at = usize::from(self.slots[slot]) - 1;
            let entry = &self.bytes[at..];
            if usize::from(entry[1]) == name.len() && entry[2..2 + name.len()] == *name {
                return Some(at);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// The kinds of a name, 0 if it is not in the list.
    #[inline(never)]
    pub fn kind(&self, name: &[u8]) -> u8 {
        self.find(Hash::of(name), name).map_or(0, |at| self.bytes[at])
    }

    /// Looks up every end of a name that begins with a label and has no more
    /// than MAX_LABELS.
    #[inline(never)]
    pub fn ends(&self, name: &[u8]) -> Ends {
        let mut e = Ends { denied: 0, allowed: 0, protected: 0, look: 0 };
        if self.kinds == 0 {
            return e;
        }
        let (mut hash, mut labels) = (Hash::new(), 0);
        for (i, b) in name.iter().enumerate().rev() {
            if *b == b'.' {
                self.end(hash, &name[i + 1..], &mut e);
                labels += 1;
                if labels == MAX_LABELS {
                    return e;
                }
            }
            hash.add(*b);
        }
        self.end(hash, name, &mut e);
        e
    }

    #[inline(never)]
    fn end(&self, hash: Hash, name: &[u8], e: &mut Ends) {
        let kind = match self.find(hash, name) {
            Some(at) => self.bytes[at],
            None => return,
        };
        for (bit, longest) in [(DENY, &mut e.denied), (ALLOW, &mut e.allowed), (PROTECT, &mut e.protected), (LOOK, &mut e.look)] {
            if kind & bit != 0 {
                *longest = name.len();
            }
        }
    }
}
