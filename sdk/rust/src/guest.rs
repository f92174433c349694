use crate::reply::RESULT_SIZE;
use crate::{Config, Judge, Message, Verdict};

/// A judge with the memory it shares with the host: `N` bytes of input. Made
/// by [`plugin!`](crate::plugin), which exports its methods.
pub struct Guest<J, const N: usize> {
    input: [u8; N],
    output: [u8; RESULT_SIZE],
    judge: J,
}

impl<J: Judge, const N: usize> Guest<J, N> {
    /// A guest before its configuration.
    pub const fn new(judge: J) -> Guest<J, N> {
        Guest { input: [0; N], output: [0; RESULT_SIZE], judge }
    }

    fn address(&self) -> u32 {
        self.input.as_ptr() as usize as u32
    }

    /// Where the host may write; 0 refuses, because the manifest asks for more
    /// input than there is room for.
    pub fn input_buffer(&self, capacity: u32) -> u32 {
        if capacity as usize > N {
            return 0;
        }
        self.address()
    }

    /// 0 if the judge takes the configuration, else 1 + the byte where it does
    /// not.
    pub fn configure(&mut self, ptr: u32, len: u32) -> u32 {
        if ptr != self.address() || len as usize > N {
            return 1;
        }
        let mut config = Config::new(&self.input[..len as usize]);
        self.judge.configure(&mut config);
        config.finish()
    }

    /// Judges one input.
    pub fn decide(&mut self, ptr: u32, len: u32) -> u64 {
        if ptr != self.address() || len as usize > N {
            return Verdict::Error as u64;
        }
        let message = match Message::decode(&self.input[..len as usize]) {
            Some(message) => message,
            None => return Verdict::Error as u64,
        };
        match self.judge.decide(&message).encode(&mut self.output) {
            (Verdict::Allow, _) => 0,
            (verdict, len) => {
                let at = self.output.as_ptr() as usize as u64;
                u64::from(verdict as u8) | (len as u64) << 8 | at << 32
            }
        }
    }
}
