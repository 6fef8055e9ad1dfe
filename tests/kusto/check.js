// Reads lines of {table, schema, query} from standard input, and answers each with {diagnostics,
// columns} as Microsoft's parser sees them: `node check.js FOLDER_OF_THE_PACKAGE`.
const { join } = require("node:path");
const { createInterface } = require("node:readline");

// The package puts its names into the global scope.
require(join(process.argv[2], "bridge.js"));
require(join(process.argv[2], "Kusto.Language.Bridge.js"));

const { Symbols, GlobalState, KustoCode } = Kusto.Language;
const listed = (list) => Array.from({ length: list.Count }, (_, index) => list.getItem(index));

const check = ({ table, schema, query }) => {
  const members = [new Symbols.TableSymbol.$ctor7(table, schema, null)];
  const database = new Symbols.DatabaseSymbol.$ctor3("workspace", null, members, false);
  const code = KustoCode.ParseAndAnalyze(query, GlobalState.Default.WithDatabase(database));
  const columns = listed(code.ResultType.Columns).map((each) => [each.Name, each.Type.Name]);
  const diagnostics = listed(code.GetDiagnostics()).map(
    (each) => `${each.Code} ${each.Message} at ${query.slice(each.Start, each.Start + 20)}`,
  );
  return { diagnostics, columns };
};

createInterface({ input: process.stdin }).on("line", (line) => {
  console.log(JSON.stringify(check(JSON.parse(line))));
});
