//! Shows a host the size that the target has grown to.

use fail::fail_point;
use tonic::Code;

use super::{Answer, Keeper, kind};
use crate::failure::Failure;
use crate::id::Id;
use crate::record::Goal;

impl Keeper {
    pub(super) async fn resize(&self, id: &Id, size: u64) -> Answer {
        let record = self
            .record(id)
            .filter(|record| record.goal == Goal::Attached);
        let mut record = record.ok_or_else(|| {
            Failure::new(
                Code::NotFound,
                format!("{id}: is not attached; call Attach first"),
            )
        })?;
        let seen = Box::pin(self.0.card.observe(&id.object(), kind(&record))).await?;
        let present = seen.device.as_ref().map_or(0, |end| end.device.size_bytes);
        if size != 0 && size < present {
            return Err(Failure::new(
                Code::OutOfRange,
                format!("{id}: has {present} bytes, {size} are asked for; a volume never shrinks"),
            ));
        }
        let before = record.spec.0.size_bytes;
        let size = if size == 0 {
            self.0.card.resize(&id.object(), 0).await?
        } else {
            size
        };
        // Who never said a size takes what comes.
        if before != 0 || size > present {
            record.spec.0.size_bytes = size;
            self.save(&record).await?;
        }
        fail_point!("resize::recorded");
        match self.until_attached(&mut record).await {
            Ok(seen) => self.settle(&mut record, &seen).await.map(Some),
            Err(why) => {
                if why.is_final() {
                    record.spec.0.size_bytes = before;
                    self.save(&record).await?;
                }
                Err(Failure::new(why.code, format!("{id}: {why}")))
            }
        }
    }
}
