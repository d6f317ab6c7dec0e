// Streams generations from a server through the C++ client as tests/bench/engine asks: all of a
// command's requests at once, one thread each. It reads one command a line from standard input and
// answers with one line of JSON, so that its measurements can alternate with those of others.
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "valuescope/client.h"

namespace valuescope {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr char kUsage[] =
    "usage: generation_bench HOST:PORT MODEL\n"
    "commands on standard input, each a JSON object on one line; each answers with one line:\n"
    "  prompts      lists of token ids, one a request\n"
    "  new_tokens   that every request generates, greedily\n"
    "  vectors      names (vectors/ID): request i is steered with vector i modulo their number, "
    "at\n"
    "               every layer from the last prompt token on; may be empty\n"
    "  coefficient  of the vectors\n";

// What one request saw.
struct Heard {
  std::vector<int> token_ids;
  std::vector<double> at;  // seconds from the command's start at which tokens came, one a delta
  std::string error;
};

v1::StreamGenerateRequest RequestOf(const std::string& model, const json& command, size_t index) {
  v1::StreamGenerateRequest request;
  request.set_model(model);
  for (const int id : command["prompts"][index]) {
    request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  }
  request.mutable_sampling()->set_max_tokens(command["new_tokens"]);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_ignore_eos(true);
  const json& vectors = command["vectors"];
  if (vectors.empty()) return request;
  v1::Intervention& steering = *request.add_interventions();
  steering.mutable_layers()->set_all(true);
  steering.mutable_add()->set_vector(vectors[index % vectors.size()]);
  steering.mutable_add()->set_coefficient(command["coefficient"]);
  return request;
}

Heard Listen(Client& client, const v1::StreamGenerateRequest& request, Clock::time_point start) {
  Heard heard;
  auto stream = client.StreamGenerate(request);
  v1::StreamGenerateResponse event;
  while (stream.Read(&event)) {
    if (!event.has_delta() || event.delta().token_ids().empty()) continue;
    heard.at.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    const auto& ids = event.delta().token_ids();
    heard.token_ids.insert(heard.token_ids.end(), ids.begin(), ids.end());
  }
  if (const absl::Status status = stream.Finish(); !status.ok()) heard.error = ErrorText(status);
  return heard;
}

json Run(Client& client, const std::string& model, const json& command) {
  const size_t count = command["prompts"].size();
  std::vector<v1::StreamGenerateRequest> requests;
  for (size_t i = 0; i < count; ++i) requests.push_back(RequestOf(model, command, i));
  std::vector<Heard> heard(count);
  std::vector<std::thread> threads;
  const auto start = Clock::now();
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] { heard[i] = Listen(client, requests[i], start); });
  }
  for (std::thread& thread : threads) thread.join();
  json answer = {
      {"seconds", std::chrono::duration<double>(Clock::now() - start).count()},
      {"first_token_seconds", json::array()},
      {"gap_seconds", json::array()},
      {"token_ids", json::array()},
  };
  for (const Heard& each : heard) {
    if (!each.error.empty()) return {{"error", each.error}};
    answer["token_ids"].push_back(each.token_ids);
    answer["first_token_seconds"].push_back(each.at.empty() ? 0 : each.at.front());
    for (size_t i = 1; i < each.at.size(); ++i) {
      answer["gap_seconds"].push_back(each.at[i] - each.at[i - 1]);
    }
  }
  return answer;
}

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << kUsage;
    return 2;
  }
  Client client(argv[1]);
  std::cout << json{{"target", argv[1]}} << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const json command = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!command.is_object()) {
      std::cerr << "not a JSON object: " << line << "\n" << kUsage;
      return 2;
    }
    std::cout << Run(client, argv[2], command) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace valuescope

int main(int argc, char** argv) { return valuescope::Main(argc, argv); }
