#include "absl/strings/str_cat.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "pages.h"

namespace valuescope::command_line {

int ListModels(const Globals& globals) {
  Client client = globals.Connect();
  const auto models = AllPages<v1::Model>(
      v1::ListModelsRequest(), [&](const auto& request) { return client.ListModels(request); },
      [](const auto& page) { return page.models(); });
  if (!models.ok()) return Fail(models.status());
  if (globals.json) return PrintJsonLines(*models);
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "STATE", "FAMILY", "LAYERS", "HIDDEN", "NEURONS", "DTYPE", "DEVICE"}};
  for (const v1::Model& model : *models) {
    rows.push_back(
        {model.name(), LowerWithoutPrefix(v1::ModelState_Name(model.state()), "MODEL_STATE_"),
         model.family(), absl::StrCat(model.num_layers()), absl::StrCat(model.hidden_size()),
         absl::StrCat(model.intermediate_size()),
         LowerWithoutPrefix(v1::DataType_Name(model.dtype()), "DATA_TYPE_"), model.device()});
  }
  PrintTable(rows);
  return kOk;
}

int GetModel(const Globals& globals, const std::string& name) {
  Client client = globals.Connect();
  v1::GetModelRequest request;
  request.set_name(ResourceName("models", name));
  const auto response = client.GetModel(request);
  if (!response.ok()) return Fail(response.status());
  const v1::Model& model = response->model();
  if (globals.json) {
    PrintJson(model);
    return kOk;
  }
  PrintTable({{"name", model.name()},
              {"state", LowerWithoutPrefix(v1::ModelState_Name(model.state()), "MODEL_STATE_")},
              {"family", model.family()},
              {"layers", absl::StrCat(model.num_layers())},
              {"hidden", absl::StrCat(model.hidden_size())},
              {"neurons a layer", absl::StrCat(model.intermediate_size())},
              {"heads", absl::StrCat(model.num_attention_heads(), " (", model.num_key_value_heads(),
                                     " key/value)")},
              {"vocabulary", absl::StrCat(model.vocab_size())},
              {"context", absl::StrCat(model.context_length())},
              {"weights", ShortDigest(model.weights_digest())},
              {"tokenizer", ShortDigest(model.tokenizer_digest())}});
  return kOk;
}

}  // namespace valuescope::command_line
