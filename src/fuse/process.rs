//! What `/proc` says of the process behind a request. A request names a thread by its number; a
//! number that `/proc` doesn't have (another pid namespace, a process that is gone) answers
//! nothing, and callers choose the careful side.
//!
//! Only `status` is read of a process that may be in execve(2): the kernel holds a lock then that
//! whoever reads `stat`, `wchan` or the links of `/proc/<pid>` waits for (Linux 6.18 does), and it
//! closes descriptors under that lock, so waits for our answer meanwhile.

use std::fs;

/// PF_EXITING of the kernel's `task_struct.flags`: the thread is in `do_exit`.
const EXITING: u64 = 0x4;
/// Bits of an exit code that hold the signal that killed the process, as `waitpid` gives it.
const KILLED_BY: u64 = 0x7f;
/// Position of `flags` and `exit_code` in `/proc/<tid>/stat`, counted after the command's name.
const STAT_FLAGS: usize = 6;
const STAT_EXIT_CODE: usize = 49;

/// The thread group (what users call the process) of a thread.
pub fn thread_group(tid: u32) -> Option<u32> {
    let status = read(tid, "status")?;
    field(&status, "Tgid:")?.parse().ok()
}

/// Whether a signal that will end the thread waits for it: one that is pending and neither ignored
/// nor caught. The thread can't act on it while it waits for our answer.
pub fn is_being_killed(tid: u32) -> bool {
    let Some(status) = read(tid, "status") else {
        // Gone, or not ours to see: nobody waits any more who could be told to go on waiting.
        return false;
    };
    let mask = |name| {
        let text = field(&status, name).unwrap_or("0");
        u64::from_str_radix(text, 16).unwrap_or(0)
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    pending & !mask("SigIgn:") & !mask("SigCgt:") & !mask("SigBlk:") & FATAL != 0
}

/// Whether the thread is on its way out because a signal killed its process, rather than by
/// returning from `main` or calling `exit`.
pub fn was_killed(tid: u32) -> bool {
    // A thread gives its memory up before it closes its descriptors. One that has some still may be
    // in execve, see the module's head.
    let status = read(tid, "status");
    let gave_up_memory = status.filter(|status| field(status, "VmSize:").is_none());
    let Some(stat) = gave_up_memory.and_then(|_| read(tid, "stat")) else {
        return false;
    };
    // The command's name is in parentheses and may hold anything, parentheses too.
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let exiting = number(STAT_FLAGS).is_some_and(|flags| flags & EXITING != 0);
    exiting && number(STAT_EXIT_CODE).is_some_and(|code| code & KILLED_BY != 0)
}

/// Signals whose default action ends a process: all but CHLD, CONT, URG, WINCH and the four that
/// stop. Bit n-1 stands for signal n.
const FATAL: u64 = !(bit(libc::SIGCHLD)
    | bit(libc::SIGCONT)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU));

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn read(tid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{tid}/{file}")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = std::process::id();
        let tid = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get() as u32);
        let tid = tid.join().unwrap();
        assert_eq!(thread_group(own), Some(own));
        assert_eq!(thread_group(tid), None, "the thread is gone");
    }

    #[test]
    fn a_process_that_lives_is_neither_killed_nor_being_killed() {
        let own = std::process::id();
        assert!(!is_being_killed(own) && !was_killed(own));
    }

    #[test]
    fn a_process_that_a_signal_ended_was_killed_and_one_that_returned_was_not() {
        for (script, killed) in [("kill -TERM $$", true), ("exit 3", false)] {
            // A zombie keeps its exit code until it is waited for.
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdout = child.stdout.take().unwrap();
            stdout.read_to_end(&mut Vec::new()).unwrap();
            let stat = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            while !stat().rsplit_once(") ").unwrap().1.starts_with('Z') {
                std::thread::yield_now();
            }
            assert_eq!(was_killed(child.id()), killed, "{script}");
            child.wait().unwrap();
        }
    }
}
