// Reads {schema, query} from standard input; prints {diagnostics, columns} as Microsoft's parser
// sees them: `node check.js FOLDER_OF_THE_PACKAGE`.
const { join } = require("node:path");
const { readFileSync } = require("node:fs");

// The package puts its names into the global scope.
require(join(process.argv[2], "bridge.js"));
require(join(process.argv[2], "Kusto.Language.Bridge.js"));

const { Symbols, GlobalState, KustoCode } = Kusto.Language;
const { table, schema, query } = JSON.parse(readFileSync(0, "utf8"));

const members = [new Symbols.TableSymbol.$ctor7(table, schema, null)];
const database = new Symbols.DatabaseSymbol.$ctor3("workspace", null, members, false);
const code = KustoCode.ParseAndAnalyze(query, GlobalState.Default.WithDatabase(database));

const listed = (list) => Array.from({ length: list.Count }, (_, index) => list.getItem(index));
const columns = listed(code.ResultType.Columns).map((each) => [each.Name, each.Type.Name]);
const diagnostics = listed(code.GetDiagnostics()).map(
  (each) => `${each.Code} ${each.Message} at ${query.slice(each.Start, each.Start + 20)}`,
);
console.log(JSON.stringify({ diagnostics, columns }));
