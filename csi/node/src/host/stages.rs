//! How long the stages of a call took, for its line in the log.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

tokio::task_local! {
    static NOTED: RefCell<Vec<(&'static str, Duration)>>;
}

/// The stages of a call, in order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Stages(Vec<(&'static str, Duration)>);

/// Does a call, and says what was measured meanwhile.
pub(crate) async fn collect<T>(call: impl Future<Output = T>) -> (T, Stages) {
    let noted = async {
        let value = call.await;
        (value, Stages(NOTED.with(RefCell::take)))
    };
    NOTED.scope(RefCell::default(), noted).await
}

/// Does a stage of the call that is collected.
pub(crate) async fn measure<T>(stage: &'static str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let value = work.await;
    // Nobody collects in a unit test.
    let _ = NOTED.try_with(|noted| noted.borrow_mut().push((stage, began.elapsed())));
    value
}

/// `find=0.1ms mount=2.3ms …`
impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (stage, time)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{stage}={:.1}ms", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_are_those_of_the_call() {
        let call =
            async { measure("find", async { 1 }).await + measure("mount", async { 2 }).await };
        let (sum, stages) = collect(call).await;
        assert_eq!(sum, 3);
        let names: Vec<_> = stages.0.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["find", "mount"]);
        assert!(stages.to_string().starts_with("find=0."));
    }
}
