//! From addresses to node ids, anew for every connection.

use opcua::types::{
    BrowsePath, NodeId, ObjectId, QualifiedName, ReadValueId, ReferenceTypeId, RelativePath,
    RelativePathElement, TimestampsToReturn, VariableId, Variant,
};
use tokio::time::timeout;

use super::live::{Live, MAX_NODES, OpenError, STEP};
use crate::config::tags::{Address, Identifier};

impl Live {
    /// Node ids of all addresses: indexes of namespaces differ from server to server and from start
    /// to start.
    pub(super) async fn resolve(&mut self, addresses: &[Address]) -> Result<(), OpenError> {
        let asked = timeout(STEP, self.session.read_namespace_array()).await;
        let namespaces = match asked {
            Err(_) => return Err(OpenError::silent("reading its namespaces")),
            Ok(Err(e)) => return Err(OpenError::status(e.status(), "reading its namespaces")),
            Ok(Ok(map)) => map,
        };
        let mut paths = Vec::new();
        for address in addresses {
            let Some(index) = namespaces.get_index(&address.namespace) else {
                let known: Vec<_> = namespaces.known_namespaces().keys().cloned().collect();
                let (of, known) = (&address.namespace, known.join(", "));
                return Err(OpenError::config(format!(
                    "no namespace {of:?} there; it has {known}"
                )));
            };
            match &address.identifier {
                Identifier::Text(text) => {
                    self.nodes.insert(address.clone(), NodeId::new(index, text.clone()));
                }
                Identifier::Number(number) => {
                    self.nodes.insert(address.clone(), NodeId::new(index, *number));
                }
                Identifier::Path(path) => paths.push((address, browse_path(index, path))),
            }
        }
        if !paths.is_empty() {
            let asked: Vec<_> = paths.iter().map(|p| p.1.clone()).collect();
            let answer =
                timeout(STEP, self.session.translate_browse_paths_to_node_ids(&asked)).await;
            let found = match answer {
                Err(_) => return Err(OpenError::silent("translating paths")),
                Ok(Err(e)) => return Err(OpenError::status(e.status(), "translating paths")),
                Ok(Ok(found)) => found,
            };
            for ((address, _), result) in paths.into_iter().zip(found) {
                let target = result.targets.and_then(|targets| targets.into_iter().next());
                // A path that leads nowhere is a tag that is missing: reading it says so.
                let node = target.map_or_else(NodeId::null, |t| t.target_id.node_id);
                self.nodes.insert(address.clone(), node);
            }
        }
        self.nodes_at_once = self.operation_limit().await;
        Ok(())
    }

    /// How many nodes this server takes at once.
    async fn operation_limit(&self) -> usize {
        let node: NodeId =
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead.into();
        let asked = [ReadValueId::new_value(node)];
        let answer =
            timeout(STEP, self.session.read(&asked, TimestampsToReturn::Neither, 0.0)).await;
        match answer.ok().and_then(Result::ok).and_then(|v| v.into_iter().next()?.value) {
            Some(Variant::UInt32(n)) if n > 0 => MAX_NODES.min(n as usize),
            _ => MAX_NODES,
        }
    }
}

fn browse_path(index: u16, path: &[String]) -> BrowsePath {
    let element = |name: &String| RelativePathElement {
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        is_inverse: false,
        include_subtypes: true,
        target_name: QualifiedName::new(index, name.as_str()),
    };
    let elements = Some(path.iter().map(element).collect());
    BrowsePath {
        starting_node: ObjectId::ObjectsFolder.into(),
        relative_path: RelativePath { elements },
    }
}
