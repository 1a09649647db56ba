//! Which states this pod knows, and that no two of them mean different things by one name.

use std::{
    any::{Any, type_name},
    collections::BTreeMap,
    sync::Arc,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Core, Health,
    cell::Local,
    family::Family,
    losses::{self, AcceptLossError, Undecodable},
    orders::Orders,
    projection::Projection,
    refold,
    verify::{self, Verified, VerifyError},
};
use crate::{Batch, CellKey, Event, Fold, FoldState, InvalidKey, Key, Offset};

/// Why a state could not be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is no valid key.
    #[error("`{name}` at {place} is not a valid key")]
    InvalidKey {
        /// The name.
        name: String,
        /// Where it was declared.
        place: &'static str,
        /// What is wrong with it.
        source: InvalidKey,
    },
    /// Two declarations of one key differ in type.
    #[error(
        "the key `{name}` is {first_type} at {first} and {second_type} at {second}: give one of them another key, or make their types the same"
    )]
    OtherType {
        /// The key.
        name: String,
        /// Where it was declared first.
        first: &'static str,
        /// As which type.
        first_type: &'static str,
        /// Where it was declared again.
        second: &'static str,
        /// As which type.
        second_type: &'static str,
    },
    /// Two event types share one event name.
    #[error(
        "the event name `{event}` belongs to {first_type} (at {first}) and to {second_type} (at {second}): give one of them another `#[event(name = …)]`"
    )]
    EventNameTaken {
        /// The event's name.
        event: &'static str,
        /// Where its first type is used.
        first: &'static str,
        /// The first type.
        first_type: &'static str,
        /// Where its second type is used.
        second: &'static str,
        /// The second type.
        second_type: &'static str,
    },
}

/// The declared states of one engine.
#[derive(Default)]
pub(super) struct Registry {
    declared: Mutex<Declared>,
}

#[derive(Default)]
struct Declared {
    families: BTreeMap<String, Declaration<dyn AnyFamily>>,
    cells: BTreeMap<String, Declaration<dyn Any + Send + Sync>>,
    events: BTreeMap<&'static str, (&'static str, &'static str)>,
    /// Families that are appended to and have no state here.
    appended: BTreeMap<String, Declaration<crate::Family>>,
}

struct Declaration<T: ?Sized> {
    place: &'static str,
    type_name: &'static str,
    state: Arc<T>,
}

/// A family whatever its types.
pub(super) trait AnyFamily: Any + Send + Sync {
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// The type of its events.
    fn event_type(&self) -> &'static str;
    fn add_health(&self, health: &mut Health);
    /// The records that were skipped, oldest first.
    fn undecodable(&self) -> Vec<Undecodable>;
    /// Whether the record of a page is one that nobody decodes.
    fn looks_lost(&self, key: &Key, offset: Offset, page: &Batch) -> Result<(), AcceptLossError>;
    /// What its projector is asked goes here.
    fn orders(&self) -> &Orders;
    /// Waits until a key has a value or is halted.
    fn here(self: Arc<Self>, key: Key) -> BoxFuture<'static, ()>;
    /// Compares a key with its log.
    fn verify(self: Arc<Self>, core: Core, key: Key) -> BoxFuture<'static, Result<Verified, VerifyError>>;
}

impl<E: Event + Fold<S>, S: FoldState> AnyFamily for Family<E, S> {
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn event_type(&self) -> &'static str {
        type_name::<E>()
    }

    fn add_health(&self, health: &mut Health) {
        let projections = self.projections();
        let is_loading = |projection: &Arc<Projection<S>>| {
            projection.key.instance_name().is_none()
                && projection.is_incomplete()
                && projection.halted().is_none()
        };
        if !self.is_live() || projections.iter().any(is_loading) {
            health.catching_up.push(self.name.clone());
        }
        let halts =
            projections.iter().filter_map(|projection| Some((projection.key.clone(), projection.halted()?)));
        health.halted.extend(halts);
    }

    fn undecodable(&self) -> Vec<Undecodable> {
        self.undecodable.lock().listed.iter().cloned().collect()
    }

    fn looks_lost(&self, key: &Key, offset: Offset, page: &Batch) -> Result<(), AcceptLossError> {
        losses::looks_lost(self, key, offset, page)
    }

    fn orders(&self) -> &Orders {
        &self.orders
    }

    fn here(self: Arc<Self>, key: Key) -> BoxFuture<'static, ()> {
        async move {
            let projection = self.projection(&key);
            refold::here(&projection, || self.want(&projection)).await;
        }
        .boxed()
    }

    fn verify(self: Arc<Self>, core: Core, key: Key) -> BoxFuture<'static, Result<Verified, VerifyError>> {
        verify::verify(core, self, key).boxed()
    }
}

impl Registry {
    /// The family of this name, and whether it is new.
    pub(super) fn family<E, S>(
        &self,
        name: &str,
        place: &'static str,
        snapshot_interval: u64,
    ) -> Result<(Arc<Family<E, S>>, bool), RegisterError>
    where
        E: Event + Fold<S>,
        S: FoldState,
    {
        let mut declared = self.declared.lock();
        declared.claim_event::<E>(place)?;
        if let Some(found) = declared.families.get(name) {
            let family =
                found.state.clone().as_any().downcast().map_err(|_| found.differs::<(E, S)>(name, place))?;
            return Ok((family, false));
        }
        if let Some(cell) = declared.cells.get(name) {
            return Err(cell.differs::<(E, S)>(name, place));
        }
        declared.check_appended::<E>(name, place)?;
        let key = crate::Family::new(name).map_err(|source| invalid(name, place, source))?;
        let family = Arc::new(Family::<E, S>::new(key, snapshot_interval));
        let declaration = Declaration { place, type_name: type_name::<(E, S)>(), state: family.clone() as _ };
        declared.families.insert(name.to_owned(), declaration);
        Ok((family, true))
    }

    /// The family of this name, for appending to it.
    pub(super) fn appender<E: Event>(
        &self,
        name: &str,
        place: &'static str,
    ) -> Result<crate::Family, RegisterError> {
        let mut declared = self.declared.lock();
        declared.claim_event::<E>(place)?;
        if let Some(found) =
            declared.families.get(name).filter(|found| found.state.event_type() != type_name::<E>())
        {
            return Err(found.differs::<E>(name, place));
        }
        if let Some(cell) = declared.cells.get(name) {
            return Err(cell.differs::<E>(name, place));
        }
        declared.check_appended::<E>(name, place)?;
        let family = crate::Family::new(name).map_err(|source| invalid(name, place, source))?;
        let declaration =
            || Declaration { place, type_name: type_name::<E>(), state: Arc::new(family.clone()) };
        declared.appended.entry(name.to_owned()).or_insert_with(declaration);
        Ok(family)
    }

    /// The local copy of the cell of this name, and whether it is new.
    pub(super) fn cell<T>(
        &self,
        name: &str,
        place: &'static str,
    ) -> Result<(Arc<Local<T>>, bool), RegisterError>
    where
        T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
    {
        let mut declared = self.declared.lock();
        if let Some(found) = declared.cells.get(name) {
            let local = found.state.clone().downcast().map_err(|_| found.differs::<T>(name, place))?;
            return Ok((local, false));
        }
        if let Some(family) = declared.families.get(name) {
            return Err(family.differs::<T>(name, place));
        }
        declared.check_appended::<T>(name, place)?;
        let key = CellKey::new(["app", name]).map_err(|source| invalid(name, place, source))?;
        let local = Arc::new(Local::<T>::new(key));
        let declaration = Declaration { place, type_name: type_name::<T>(), state: local.clone() as _ };
        declared.cells.insert(name.to_owned(), declaration);
        Ok((local, true))
    }

    /// The family of this name, whatever its types.
    pub(super) fn find(&self, family: &crate::Family) -> Option<Arc<dyn AnyFamily>> {
        self.declared.lock().families.get(family.as_str()).map(|found| found.state.clone())
    }

    /// The names of the families that are declared here, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let declared = self.declared.lock();
        let names: std::collections::BTreeSet<_> =
            declared.families.keys().chain(declared.appended.keys()).cloned().collect();
        names.into_iter().collect()
    }

    /// Every family, by name.
    pub(super) fn families(&self) -> Vec<Arc<dyn AnyFamily>> {
        self.declared.lock().families.values().map(|found| found.state.clone()).collect()
    }

    pub(super) fn add_health(&self, health: &mut Health) {
        self.declared.lock().families.values().for_each(|found| found.state.add_health(health));
    }
}

impl Declared {
    /// What is appended to under a name is one type.
    fn check_appended<Second>(&self, name: &str, place: &'static str) -> Result<(), RegisterError> {
        match self.appended.get(name).filter(|found| found.type_name != type_name::<Second>()) {
            Some(found) => Err(found.differs::<Second>(name, place)),
            None => Ok(()),
        }
    }

    /// An event name decides how a record is decoded, so it belongs to one type.
    fn claim_event<E: Event>(&mut self, place: &'static str) -> Result<(), RegisterError> {
        let (first, first_type) = *self.events.entry(E::NAME).or_insert((place, type_name::<E>()));
        if first_type == type_name::<E>() {
            return Ok(());
        }
        let second_type = type_name::<E>();
        Err(RegisterError::EventNameTaken { event: E::NAME, first, first_type, second: place, second_type })
    }
}

impl<T: ?Sized> Declaration<T> {
    fn differs<Second>(&self, name: &str, place: &'static str) -> RegisterError {
        RegisterError::OtherType {
            name: name.to_owned(),
            first: self.place,
            first_type: self.type_name,
            second: place,
            second_type: type_name::<Second>(),
        }
    }
}

fn invalid(name: &str, place: &'static str, source: InvalidKey) -> RegisterError {
    RegisterError::InvalidKey { name: name.to_owned(), place, source }
}

/// What every cell of `StateApp` is below.
pub(super) fn app_cells() -> CellKey {
    CellKey::new(["app"]).expect("a valid path")
}
